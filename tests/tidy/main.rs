//! The house rules that no compiler holds, as tests. One `#[test]` a rule; a failure names file and line and says what to do.
//!
//! Formatting and lints are `make lint`'s. Sources are read as text, so the scanners lean on rustfmt's layout: a function
//! ends at the first `}` as far in as its `fn`. Test modules may import from anywhere, to set a scene.

use std::{
    fs,
    path::{Path, PathBuf},
};

mod circles;

const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 70;

/// Who may import whom: only levels further down, or itself.
const LEVELS: [&[&str]; 6] = [
    &["main"],
    &["cli"],
    &["app"],
    &["serve", "gate", "load", "otlp", "admin"],
    &["limiter", "upstream"],
    &[
        "config", "metrics", "shutdown", "body", "code", "peer", "log", "stream", "tls", "trace", "wire", "clients",
        "alarm", "workers",
    ],
];

/// Not written down in source, but done: each with what to do instead. Split, so that this table is not its own finding.
const BANNED: [(&str, &str); 7] = [
    (concat!("TO", "DO"), "do it, or open an issue"),
    (concat!("FIX", "ME"), "do it, or open an issue"),
    (concat!("XX", "X"), "do it, or open an issue"),
    (concat!("HA", "CK"), "do it properly, or say why it is right"),
    (concat!("db", "g!"), "log it or drop it"),
    (concat!("#[ig", "nore"), "a test that does not run proves nothing: run it or delete it"),
    (concat!("thread::", "sleep"), "wait for the event itself"),
];

/// What the head of a script has to say, each before a colon: "KEYS: …", or "KEYS, ARGV: …" where one line says both.
const LUA_HEAD: [&str; 5] = ["purpose", "keys", "argv", "returns", "clock"];

// === the rules ===

#[test]
fn files_are_short_enough_to_be_read_at_once() {
    check(sources(), |_, text| {
        let lines = text.lines().count();
        finding(lines > MAX_FILE_LINES, 1, format!("{lines} lines, {MAX_FILE_LINES} at most: split it by subject"))
    });
}

#[test]
fn functions_fit_on_a_screen() {
    check(sources(), |_, text| {
        let long = functions(text).into_iter().filter(|function| function.lines > MAX_FUNCTION_LINES);
        long.map(|Function { line, name, lines }| {
            (line, format!("`{name}` has {lines} lines, {MAX_FUNCTION_LINES} at most: take a step out of it"))
        })
        .collect()
    });
}

#[test]
fn files_begin_with_what_they_promise() {
    check(sources(), |_, text| {
        finding(!text.starts_with("//!"), 1, "begin with a `//!` head: what is promised, what is not".into())
    });
}

#[test]
fn imports_point_one_way() {
    check(files("src", "rs"), foreign_imports);
}

#[test]
fn every_module_has_a_level() {
    check(vec![PathBuf::from("src/lib.rs")], |_, text| {
        let modules = numbered(text).filter_map(|(line, text)| Some((line, text.trim().strip_prefix("pub mod ")?)));
        let unknown = modules.filter(|(_, name)| level(name.trim_end_matches(';')).is_none());
        unknown.map(|(line, name)| (line, format!("`{name}` has no place in LEVELS of tests/tidy"))).collect()
    });
}

#[test]
fn nothing_is_left_for_later() {
    check(sources(), |_, text| banned(text));
}

#[test]
fn scripts_begin_with_purpose_keys_arguments_returns_and_clock() {
    let scripts = files("lua", "lua");
    assert!(!scripts.is_empty(), "lua/ holds the store's scripts, and there are none");
    check(scripts, |_, text| {
        let missing = missing_in_head(text);
        finding(!missing.is_empty(), 1, format!("the head comment lacks {}: see the other scripts", missing.join(", ")))
    });
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let mut commands = commands(&fs::read_to_string(root().join("README.md")).expect("README.md"));
    commands.truncate(2);
    assert_eq!(
        commands,
        ["cargo run --release -- demo", "make test"],
        "README.md: the first two commands of its code blocks"
    );
}

#[test]
fn the_configuration_is_documented() {
    assert!(root().join("config/cxgate.toml").is_file(), "config/cxgate.toml documents every key: write it");
}

#[test]
fn no_file_knows_where_it_was_written() {
    check(files(".", ""), |_, text| {
        let lines = numbered(text).filter_map(|(line, text)| Some((line, private_path(text)?)));
        lines.map(|(line, path)| (line, format!("`{path}` exists on one machine only: use a relative path"))).collect()
    });
}

// === the scanners ===

/// A line, counted from 1, and what is wrong there.
type Finding = (usize, String);

#[derive(Debug, PartialEq)]
struct Function {
    line: usize,
    name: String,
    lines: usize,
}

/// Every function with the number of its lines, from the `fn` to its closing brace.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let qualifiers = ["pub", "const", "async", "unsafe", "extern"];
        let mut words = before.split_whitespace().map(|word| word.split('(').next().unwrap_or_default());
        if line.ends_with(';') || !words.all(|word| qualifiers.contains(&word)) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = (start..lines.len()).find(|&end| lines[end] == closing || (end == start && line.ends_with('}')));
        if let Some(end) = end {
            let name = after.chars().take_while(|character| is_name(*character)).collect();
            functions.push(Function { line: start + 1, name, lines: end - start + 1 });
        }
    }
    functions
}

/// What a source of the library takes from modules that are not below its own.
fn foreign_imports(path: &Path, text: &str) -> Vec<Finding> {
    let below_src: Vec<String> =
        path.iter().skip(1).map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
    let own = below_src[0].as_str();
    if own == "lib" || below_src.iter().any(|part| part == "tests") {
        return Vec::new();
    }
    let Some(own_level) = level(own) else {
        return vec![(1, format!("`{own}` has no place in LEVELS of tests/tidy"))];
    };
    // As many `super::` as the file lies deep reach the crate's root, too; `main` sees the library from outside.
    let to_root = "super::".repeat(below_src.len());
    let code = without_tests_and_comments(text).replace(&to_root, "crate::").replace("cxgate::", "crate::");
    let mut findings = Vec::new();
    for (offset, _) in code.match_indices("crate::") {
        let line = code[..offset].matches('\n').count() + 1;
        for name in names_after(&code[offset + "crate::".len()..]) {
            if name != own && level(&name).is_none_or(|level| level <= own_level) {
                findings.push((line, format!("`{own}` must not know `{name}`: let `app` introduce them")));
            }
        }
    }
    findings
}

/// The first names of a path that goes on as `code`: one, or those of a group.
fn names_after(code: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|character| is_name(*character)).collect::<String>();
    let Some(group) = code.strip_prefix('{') else { return vec![name(code)] };
    let (mut depth, mut names) = (0, vec![name(group)]);
    for (offset, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[offset + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The code alone, line for line: comments and inline test modules become blank.
fn without_tests_and_comments(text: &str) -> String {
    let mut in_tests = false;
    let mut code = String::new();
    for line in text.lines() {
        in_tests |= line == "#[cfg(test)]";
        if !in_tests {
            code += line.split("//").next().unwrap_or_default();
        }
        code.push('\n');
        in_tests &= line.starts_with(' ') || !line.ends_with([';', '}']);
    }
    code
}

/// Where a module stands in [`LEVELS`].
fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// Words and calls that are not for keeping.
fn banned(text: &str) -> Vec<Finding> {
    let found = |(line, text): (usize, &str)| {
        let (word, remedy) = BANNED.iter().find(|(word, _)| text.contains(word))?;
        Some((line, format!("`{word}`: {remedy}")))
    };
    numbered(text).filter_map(found).collect()
}

/// What the comment at the top of a script does not say.
fn missing_in_head(script: &str) -> Vec<&'static str> {
    let head = script.lines().map_while(|line| line.strip_prefix("--"));
    let labels = head.filter_map(|line| Some(line.split_once(':')?.0.to_lowercase())).collect::<Vec<_>>().join(",");
    let is_said = |word: &&str| labels.split(',').any(|label| label.trim().starts_with(word));
    LUA_HEAD.into_iter().filter(|word| !is_said(word)).collect()
}

/// The commands in a page's code blocks, without prompts and trailing comments.
fn commands(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            let command = line.trim().trim_start_matches("$ ").split(" #").next().unwrap_or_default().trim();
            commands.push(command.to_owned());
        }
    }
    commands.retain(|command| !command.is_empty() && !command.starts_with('#'));
    commands
}

/// A path that begins at the root of the file system and leads to a place of one machine.
fn private_path(line: &str) -> Option<String> {
    ["work", "tmp", "root"].into_iter().find_map(|place| {
        let path = format!("/{place}/");
        let starts = |(offset, _): (usize, &str)| {
            let before = line[..offset].chars().next_back();
            before.is_none_or(|character| !is_name(character) && !"./}*-~".contains(character))
        };
        line.match_indices(&path).any(starts).then_some(path.clone())
    })
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

// === reading and reporting ===

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source.
fn sources() -> Vec<PathBuf> {
    ["src", "tests", "benches"].into_iter().flat_map(|folder| files(folder, "rs")).collect()
}

/// Every file below `folder` with that extension (any where it is empty), relative to the project; none if there is no such
/// folder. What is built or belongs to git is not of the project.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_foreign = [".git", "target", ".tools"].iter().any(|name| entry.file_name() == *name);
            if path.is_dir() && !is_foreign {
                folders.push(path);
            } else if !is_foreign && (extension.is_empty() || path.extension().is_some_and(|found| found == extension)) {
                found.extend(path.strip_prefix(root()).map(Path::to_owned));
            }
        }
    }
    found.sort();
    found
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn finding(is_wrong: bool, line: usize, message: String) -> Vec<Finding> {
    if is_wrong { vec![(line, message)] } else { Vec::new() }
}

/// Fails with all findings of a rule at once. Files that are not text have none.
fn check(paths: Vec<PathBuf>, rule: impl Fn(&Path, &str) -> Vec<Finding>) {
    let mut report = Vec::new();
    for path in paths {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        let findings = rule(&path, &text);
        report.extend(findings.into_iter().map(|(line, message)| format!("{}:{line}: {message}", path.display())));
    }
    assert!(report.is_empty(), "\n{}\n", report.join("\n"));
}

// === each scanner can find something ===

#[test]
fn a_function_is_measured_from_its_first_line_to_its_brace() {
    let text =
        "impl A {\n    pub(super) async fn b(\n        self,\n    ) {\n        if c {\n        }\n    }\n}\nfn d() {}\n";
    let found: Vec<(usize, String, usize)> = functions(text).into_iter().map(|f| (f.line, f.name, f.lines)).collect();
    assert_eq!(found, [(2, "b".into(), 6), (9, "d".into(), 1)]);
    assert_eq!(functions("trait A {\n    fn b();\n}\n// a fn in prose {\n}\n"), []);
}

#[test]
fn an_import_against_the_arrows_is_found_in_every_form() {
    let lines = |path: &str, text: &str| -> Vec<usize> {
        foreign_imports(Path::new(path), text).into_iter().map(|(line, _)| line).collect()
    };
    assert_eq!(lines("src/gate/stage.rs", "use crate::limiter::Key;\nuse crate::serve::Serve;\n"), [2]);
    assert_eq!(lines("src/limiter.rs", "use crate::{\n    config::{self, Rate},\n    gate::{Call},\n};\n"), [1]);
    assert_eq!(lines("src/limiter.rs", "fn f() -> crate::app::App {\n"), [1]);
    assert_eq!(lines("src/load.rs", "use super::gate;\n"), [1]);
    assert_eq!(lines("src/load/poll.rs", "use super::gate;\nuse super::super::gate;\n"), [2]);
    assert_eq!(lines("src/config.rs", "use crate::unheard_of::A;\n"), [1]);
    assert_eq!(lines("src/unheard_of.rs", ""), [1]);
    assert_eq!(lines("src/main.rs", "use cxgate::cli;\n"), []);
    assert_eq!(lines("src/gate.rs", "// crate::app\n#[cfg(test)]\nmod tests {\n    use crate::app::App;\n}\n"), []);
    assert_eq!(lines("src/gate.rs", "#[cfg(test)]\nmod tests {\n}\nuse crate::app::App;\n"), [4]);
    assert_eq!(lines("src/gate.rs", "#[cfg(test)]\nmod tests;\nuse crate::app::App;\n"), [3]);
}

#[test]
fn unfinished_work_is_found() {
    let text = BANNED.map(|(word, _)| format!("fine\n{word}\n")).concat();
    let lines: Vec<usize> = banned(&text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [2, 4, 6, 8, 10, 12, 14]);
}

#[test]
fn a_bad_head_is_found() {
    assert_eq!(missing_in_head("-- Purpose: p\n-- KEYS[1]: k\n-- ARGV[1]: a\n-- Returns: r\n-- Clock: c\n"), [""; 0]);
    assert_eq!(missing_in_head("-- Purpose: p\n-- KEYS, ARGV, clock: as there\n"), ["returns"]);
    assert_eq!(missing_in_head("-- Purpose: p\nlocal keys = KEYS\n-- KEYS: k\n"), ["keys", "argv", "returns", "clock"]);
}

#[test]
fn commands_are_those_of_code_blocks() {
    let page = "`no`\n```sh\n# a comment\n$ first thing # why\n\nsecond\n```\nno\n    ```\n    third\n    ```\n";
    assert_eq!(commands(page), ["first thing", "second", "third"]);
}

#[test]
fn a_private_path_is_found() {
    for place in ["work", "tmp", "root"] {
        assert!(private_path(&format!("at \"/{place}/file\"")).is_some(), "{place}");
        assert!(private_path(&format!("/{place}/file")).is_some(), "{place}");
        assert!(private_path(&format!("https://host/{place}/file and ./{place}/file")).is_none(), "{place}");
    }
}
