//! `docs/ports.md` tells the truth: the files it names exist, and the table answers as it says.

#[path = "../examples/replay/session.rs"]
mod session;

use std::path::Path;

const PAGE: &str = include_str!("../../../docs/ports.md");

#[test]
fn every_file_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut named = 0;
    for text in PAGE.split('`').filter(|text| text.starts_with("crates/")) {
        assert!(root.join(text).is_file(), "{text}");
        named += 1;
    }
    assert!(named > 10, "{named} files");
}

#[test]
fn every_answer_is_what_the_table_answers() {
    let mut session = session::Session::new();
    let mut asked = None;
    let mut answers = 0;
    let blocks = PAGE
        .split("```replay\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        if let Some(question) = line.strip_prefix("> ") {
            asked = Some(question);
        } else if let Some(expected) = line.strip_prefix("< ") {
            let question = asked.take().expect("a question before the answer");
            let answer = session.answer(question.as_bytes()).to_string();
            assert_eq!(answer, expected, "to {question}");
            answers += 1;
        } else {
            panic!("neither question nor answer: {line}");
        }
    }
    assert!(answers > 30, "{answers} answers");
}
