//! The files of the corpus: lines `# key: value` that say what is expected, then the bytes.
//!
//! Line breaks of the file mean nothing; every byte that matters is written out: `\r`, `\n`, `\t`, `\\`, `\xHH`, and
//! `\*N{text}` for N times that text.

use std::{fs, path::Path};

/// One file.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    keys: Vec<(String, String)>,
}

/// All files of one folder, in order of their names.
pub fn all(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus").join(folder);
    let mut cases: Vec<Case> = fs::read_dir(folder).unwrap().map(|entry| Case::read(&entry.unwrap().path())).collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

// === impl Case ===

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (head, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("# "));
        let keys = head.iter().map(|line| {
            let (key, value) = line[2..].split_once(": ").unwrap_or_else(|| panic!("{name}: `{line}` has no value"));
            (key.to_owned(), value.to_owned())
        });
        let keys = keys.collect::<Vec<_>>();
        let bytes = unescape(&lines.concat());
        let case = Self { name, bytes, keys };
        assert!(!case.expected().is_empty() && case.key("source").is_some(), "{}: expectation and source", case.name);
        case
    }

    /// The value of a key that is there once.
    pub fn key(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of a key.
    pub fn all_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The words of what is expected.
    pub fn expected(&self) -> Vec<&str> {
        self.key("expect").unwrap_or_default().split(' ').filter(|word| !word.is_empty()).collect()
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend(plain.as_bytes());
        rest = &escape[1..];
        match escape.as_bytes()[0] {
            b'r' => bytes.push(b'\r'),
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'\\' => bytes.push(b'\\'),
            b'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            b'*' => {
                let (count, repeated) = rest.split_once('{').unwrap();
                let (repeated, after) = repeated.split_once('}').unwrap();
                bytes.extend(unescape(repeated).repeat(count.parse().unwrap()));
                rest = after;
            }
            other => panic!("an unknown escape `\\{}`", char::from(other)),
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}
