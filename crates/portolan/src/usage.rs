//! A wrong command line in one sentence: what is wrong, in which word, and what to write.

use std::error::Error as _;
use std::ffi::OsString;
use std::num::ParseIntError;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use portolan_core::Escaped;

/// Of what was typed a message shows at most so many characters.
const MAX_SHOWN: usize = 80;

/// Why a program that joins a space has few options.
const JOINED: &str = "a program that joins a space has its user, network, ports and policy";

/// What clap found wrong with `words`, the program's name first; `command` is the one whose help says more.
pub(crate) fn fault(error: &clap::Error, words: &[OsString], command: Option<&str>) -> String {
    let texts = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        Some(_) | None => Vec::new(),
    };
    let text = |kind| texts(kind).join(", ");
    let argument = shown(&text(ContextKind::InvalidArg));
    let value = shown(&text(ContextKind::InvalidValue));
    let did_you_mean = |kind| match texts(kind).as_slice() {
        [] => None,
        near => Some(format!("did you mean {}?", near.join(" or "))),
    };
    let (what, remedy) = match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() => (
            format!("{argument} wants a value"),
            one_of(&texts(ContextKind::ValidValue)),
        ),
        ErrorKind::InvalidValue => (
            format!("\"{value}\" is no value of {argument}"),
            did_you_mean(ContextKind::SuggestedValue).or_else(|| one_of(&texts(ContextKind::ValidValue))),
        ),
        ErrorKind::ValueValidation => {
            let why = match error.source() {
                Some(source) if source.is::<ParseIntError>() => "a whole number belongs there".to_owned(),
                Some(source) => source.to_string(),
                None => "it cannot be read".to_owned(),
            };
            (format!("{argument} \"{value}\": {why}"), None)
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => (
            format!("there is no option {argument}"),
            did_you_mean(ContextKind::SuggestedArg)
                .or_else(|| Some("behind -- it would be taken as a value".to_owned())),
        ),
        ErrorKind::UnknownArgument => (format!("\"{argument}\" is one argument too many"), None),
        ErrorKind::InvalidSubcommand => (
            format!(
                "there is no command \"{}\"",
                shown(&text(ContextKind::InvalidSubcommand))
            ),
            did_you_mean(ContextKind::SuggestedSubcommand),
        ),
        ErrorKind::MissingRequiredArgument if command == Some("run") => (
            "run needs a program to run".to_owned(),
            Some(
                "write it behind --, as in: portolan run -p 8080:80 -- python3 -m http.server 80".to_owned(),
            ),
        ),
        ErrorKind::MissingRequiredArgument => (format!("{argument} is required"), None),
        ErrorKind::ArgumentConflict => {
            let other = shown(&text(ContextKind::PriorArg));
            if other == argument || other.is_empty() {
                (format!("{argument} is given more than once"), None)
            } else {
                let joins = [&argument, &other].iter().any(|name| name.starts_with("--join "));
                (
                    format!("{argument} and {other} exclude each other"),
                    joins.then(|| JOINED.to_owned()),
                )
            }
        }
        ErrorKind::TooManyValues => (
            format!("{argument} takes no value, and there is \"{value}\""),
            None,
        ),
        ErrorKind::NoEquals => (format!("the value of {argument} follows its ="), None),
        ErrorKind::InvalidUtf8 => (not_utf8(words), Some("write it in UTF-8".to_owned())),
        // What no definition of ours leads to is told in clap's words, without its usage.
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            (first.trim_start_matches("error: ").to_owned(), None)
        }
    };
    let help = match command {
        Some(name) => format!("see portolan {name} --help"),
        None => "see portolan --help".to_owned(),
    };
    [Some(what), remedy, Some(help)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

fn shown(text: &str) -> String {
    Escaped::new(text).bounded(MAX_SHOWN).to_string()
}

fn one_of(values: &[String]) -> Option<String> {
    match values {
        [] => None,
        [one] => Some(format!("write {one}")),
        [first @ .., last] => Some(format!("write {} or {last}", first.join(", "))),
    }
}

/// The word that is not text, and where it ceases to be.
fn not_utf8(words: &[OsString]) -> String {
    let bytes = words
        .iter()
        .skip(1)
        .map(|word| word.as_encoded_bytes())
        .find_map(|word| Some((word, std::str::from_utf8(word).err()?)));
    match bytes {
        Some((word, error)) => format!(
            "cannot read \"{}\" at {}: it is not UTF-8",
            Escaped::new(word).bounded(MAX_SHOWN),
            error.valid_up_to()
        ),
        None => "an argument is not UTF-8".to_owned(),
    }
}
