//! The fuzzer's corpus, replayed: what was found once stays found.

use std::{fs, path::Path};

use crate::corpus::case;

#[path = "../../fuzz/src/lib.rs"]
mod entries;

#[test]
fn no_input_that_was_kept_breaks_what_is_fuzzed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, entry) in entries::TARGETS {
        let inputs: Vec<_> = fs::read_dir(corpus.join(name)).expect(name).map(|file| file.unwrap().path()).collect();
        assert!(inputs.len() >= 3, "{name} has {} inputs", inputs.len());
        for input in inputs {
            entry(&fs::read(input).unwrap());
        }
    }
}

#[test]
fn raw_messages_are_judged_alike_however_they_are_cut() {
    // Long ones say nothing new, and take long byte by byte.
    for case in case::all("requests").into_iter().filter(|case| case.bytes.len() < 10_000) {
        entries::request_head(&case.bytes);
    }
    for case in case::all("responses").into_iter().filter(|case| case.bytes.len() < 10_000) {
        entries::response_head(&case.bytes);
    }
}
