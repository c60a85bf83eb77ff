//! The command line as one definition, from which help, completions and man pages are made too.

use std::ffi::OsString;
use std::io::Write as _;

use clap::builder::StyledStr;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands;
use crate::exit::{Answer, Failure};
use crate::output::Output;
use crate::usage;

/// See, explain and guard the ports of a machine
///
/// Without a command: `portolan list`, the open ports of this machine, who holds them, and from where they
/// can be reached. All that is said of list goes without the word too: `portolan -a https`.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    list: commands::list::Args,
    /// Say on standard error where the answers came from
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(commands::list::Args),
    Who(commands::who::Args),
    Name(commands::name::Args),
    Parse(commands::parse::Args),
    Pick(commands::pick::Args),
    Run(Box<commands::run::Args>),
    Spaces(commands::spaces::Args),
    Decode(commands::decode::Args),
    Explain(commands::explain::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

/// A command line, understood.
#[derive(Debug)]
pub(crate) struct Invocation {
    command: Command,
    verbose: bool,
    /// Whether the command was named, and not only meant.
    named: bool,
}

impl Invocation {
    pub(crate) fn run(self, output: &mut Output) -> Result<Answer, Failure> {
        match self.command {
            Command::List(args) => commands::list::run(&args, self.verbose, self.named, output),
            Command::Who(args) => commands::who::run(&args, self.verbose, output),
            Command::Name(args) => commands::name::run(&args, output),
            Command::Parse(args) => commands::parse::run(&args, output),
            Command::Run(args) => commands::run::run(&args, self.verbose),
            Command::Spaces(args) => commands::spaces::run(&args, output),
            Command::Pick(args) => commands::pick::run(&args, output),
            Command::Decode(args) => commands::decode::run(&args, output),
            Command::Explain(args) => commands::explain::run(&args, self.verbose, output),
            Command::Completions(args) => commands::completions::run(&args, output),
            Command::Man(args) => commands::man::run(&args, output),
        }
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Run(Box<Invocation>),
    /// `--help`, `--version`: a text of the command line itself.
    Print(StyledStr),
}

impl Request {
    pub(crate) fn run(self, output: &mut Output) -> Result<Answer, Failure> {
        match self {
            Self::Run(invocation) => invocation.run(output),
            Self::Print(text) if output.colour() => {
                write!(output, "{}", text.ansi())?;
                Ok(Answer::Yes)
            }
            Self::Print(text) => {
                write!(output, "{text}")?;
                Ok(Answer::Yes)
            }
        }
    }
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Request, Failure> {
    let words = with_command_first(std::env::args_os().collect());
    match Cli::try_parse_from(&words) {
        Ok(cli) => Ok(Request::Run(Box::new(Invocation {
            named: cli.command.is_some(),
            command: cli.command.unwrap_or(Command::List(cli.list)),
            verbose: cli.verbose > 0,
        }))),
        Err(error) if !error.use_stderr() => Ok(Request::Print(error.render())),
        Err(error) => {
            let command = Cli::command();
            let named = words.get(1).and_then(|word| command.find_subcommand(word));
            let name = named.map(clap::Command::get_name);
            Err(Failure::Usage(usage::fault(&error, &words, name)))
        }
    }
}

/// The command that `word` is, or was probably meant to be.
pub(crate) fn similar_command(word: &str) -> Option<String> {
    let command = Cli::command();
    let names = command.get_subcommands().map(clap::Command::get_name);
    names
        .map(|name| (distance(word, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 6)
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Puts the options of every command behind the command's name: after an option of `list`, which `-v` could
/// be as well, a word is a filter.
fn with_command_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_verbose = |word: &OsString| {
        word.to_str().is_some_and(|word| {
            word == "--verbose"
                || word.strip_prefix('-').is_some_and(|letters| {
                    !letters.is_empty() && letters.bytes().all(|letter| letter == b'v')
                })
        })
    };
    let options = words.iter().skip(1).take_while(|word| is_verbose(word)).count();
    let command = words.get(1 + options).and_then(|word| word.to_str());
    if options > 0 && command.is_some_and(|word| Cli::command().find_subcommand(word).is_some()) {
        words[1..=1 + options].rotate_right(1);
    }
    words
}

/// How many letters have to be put in, left out, changed, or exchanged with their neighbour (optimal string
/// alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > MAX_NAME || b.len() > MAX_NAME {
        return usize::MAX;
    }
    // Of the first row and column only the sums count: i + j letters put in or left out.
    let mut rows = (0..=a.len())
        .map(|i| (i..=i + b.len()).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// No command's name is longer.
const MAX_NAME: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_may_stand_before_its_name() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let cases = [
            ("portolan -v name 80", "portolan name -v 80"),
            ("portolan -vv --verbose list", "portolan list -vv --verbose"),
            ("portolan -v 80", "portolan -v 80"),
            ("portolan -t name", "portolan -t name"),
            ("portolan", "portolan"),
        ];
        for (given, expected) in cases {
            assert_eq!(with_command_first(words(given)), words(expected));
        }
    }

    #[test]
    fn the_word_list_may_be_left_out() {
        let cli = Cli::try_parse_from(["portolan", "-a", "8080"]).unwrap();
        assert!(cli.command.is_none());
        let cli = Cli::try_parse_from(["portolan", "list", "-a", "8080"]).unwrap();
        assert!(matches!(cli.command, Some(Command::List(_))));
    }

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let cases = [
            ("lst", Some("list")),
            ("lsit", Some("list")),
            ("nmae", Some("name")),
            ("completion", Some("completions")),
            ("list", Some("list")),
            ("hwo", Some("who")),
            ("nginx", None),
            ("8080", None),
            ("a-word-that-is-longer-than-any-command", None),
        ];
        for (word, expected) in cases {
            assert_eq!(similar_command(word).as_deref(), expected, "{word}");
        }
    }
}
