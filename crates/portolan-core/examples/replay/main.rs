//! Drives the port table from outside: one JSON object a line on stdin, one answer a line on stdout.
//!
//! ```text
//! $ cargo run -p portolan-core --example replay
//! {"op":"config","addresses":{"eth0":["10.8.0.1/24"]},"ephemeral":[40000,40003],"unprivileged_start":1024,"reserved":[]}
//! {"ok":true}
//! {"op":"socket","id":1,"protocol":"tcp","family":"ipv4","uid":0}
//! {"ok":true}
//! {"op":"bind","id":1,"address":"10.8.0.1","port":80}
//! {"ok":true,"port":80}
//! ```
//!
//! So the table can be compared with a kernel by anyone, in any language.

mod session;

use std::io::{self, BufRead, BufReader, BufWriter, Write};

use session::Session;

fn main() -> io::Result<()> {
    let mut input = BufReader::new(io::stdin());
    let mut output = BufWriter::new(io::stdout());
    let mut session = Session::new();
    let mut line = Vec::new();
    loop {
        if input.buffer().is_empty() {
            output.flush()?;
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        writeln!(output, "{}", session.answer(&line))?;
    }
}
