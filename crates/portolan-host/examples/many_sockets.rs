//! Opens many connected TCP sockets over many processes, for measuring what lists them.
//!
//! ```text
//! many_sockets PROCESSES PAIRS LISTENERS
//! ```
//!
//! Each process listens on LISTENERS ports of 127.0.0.1 and connects PAIRS times to its first one: 2 × PAIRS
//! connected sockets a process. When all stand, `ready` is printed; the sockets stay until standard input
//! closes. Raise `ulimit -n` first. Use a network namespace of your own.

use std::env;
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    let number = |at: usize| -> Result<u16, Box<dyn Error>> {
        Ok(arguments
            .get(at)
            .ok_or("usage: many_sockets PROCESSES PAIRS LISTENERS")?
            .parse()?)
    };
    let (processes, pairs, listeners) = (number(0)?, number(1)?, number(2)?);
    match arguments.get(3) {
        Some(first_port) => hold(first_port.parse()?, pairs, listeners),
        None => start(processes, pairs, listeners),
    }
}

/// Starts the processes and waits until each has its sockets.
fn start(processes: u16, pairs: u16, listeners: u16) -> Result<(), Box<dyn Error>> {
    let mut children = Vec::new();
    for index in 0..processes {
        let first_port = 2000 + index * listeners.max(1);
        let mut child = Command::new(env::current_exe()?)
            .args([processes, pairs, listeners, first_port].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        if line != "ready\n" {
            return Err(format!("process {index} could not open its sockets").into());
        }
        children.push(child);
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    // A child ends when its standard input closes, which waiting for it does.
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

/// Opens the sockets of one process and keeps them.
fn hold(first_port: u16, pairs: u16, listeners: u16) -> Result<(), Box<dyn Error>> {
    let listening = (0..listeners.max(1))
        .map(|offset| TcpListener::bind(("127.0.0.1", first_port + offset)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut connected = Vec::with_capacity(2 * usize::from(pairs));
    for _ in 0..pairs {
        connected.push(TcpStream::connect(("127.0.0.1", first_port))?);
        connected.push(listening[0].accept()?.0);
    }
    io::stdout().write_all(b"ready\n")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
