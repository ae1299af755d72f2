//! Modules that lie beside each other import in one direction: no way along their imports leads back.
//!
//! What lies below a module imports in its name. A module may know its children, and what its parents define; a name that a
//! parent has from a child counts as the child's. A path that begins with `super` or `crate` is an import wherever it stands.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};

use super::{Finding, check, files, is_name, root, without_tests_and_comments};

/// The names on the way from the root of the crate to a module, or to something in it.
type Names = Vec<String>;

/// The code of every module.
type Modules = BTreeMap<Names, String>;

/// That one of two modules beside each other takes something from the other.
struct Arrow {
    /// Who says so, in its own name or that of a parent, and in which line.
    by: Names,
    line: usize,
    from: Names,
    to: Names,
}

// === the rule ===

#[test]
fn modules_beside_each_other_import_in_one_direction() {
    let sources = files("src", "rs");
    let texts = sources.iter().filter_map(|path| Some((module(path)?, fs::read_to_string(root().join(path)).ok()?)));
    let circles = circles(&texts.map(|(module, text)| (module, without_tests_and_comments(&text))).collect());
    check(sources, |path, _| {
        let own = circles.iter().filter(|(by, _)| module(path).as_ref() == Some(by));
        own.map(|(_, finding)| finding.clone()).collect()
    });
}

// === the scanner ===

/// The module that a source below `src` is; none where it is a test.
fn module(path: &Path) -> Option<Names> {
    let names = path.iter().skip(1).map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned());
    let names: Names = names.filter(|name| name != "lib").collect();
    (!names.iter().any(|name| name == "tests")).then_some(names)
}

/// Every arrow that a way leads back from, with the module that it was found in.
fn circles(modules: &Modules) -> BTreeSet<(Names, Finding)> {
    let arrows: Vec<Arrow> = modules.keys().flat_map(|module| arrows(modules, module)).collect();
    let finding = |Arrow { by, line, from, to }: &Arrow| {
        let back = way(&arrows, to, from)?.join(" → ");
        let message =
            format!("`{}` must not know who knows it ({back}): give what they share a place below", from.join("::"));
        Some((by.clone(), (*line, message)))
    };
    arrows.iter().filter_map(finding).collect()
}

/// What a module takes from the neighbours of itself or of its parents.
fn arrows(modules: &Modules, module: &Names) -> Vec<Arrow> {
    let code = &modules[module];
    let mut arrows = Vec::new();
    for (offset, _) in code.match_indices("super::").chain(code.match_indices("crate::")) {
        if code[..offset].ends_with(|character| is_name(character) || character == ':') {
            continue;
        }
        let line = code[..offset].matches('\n').count() + 1;
        for path in paths(&code[offset..]).0 {
            let to = home(modules, module.clone(), &path);
            let shared = module.iter().zip(&to).take_while(|(own, others)| own == others).count();
            if let (Some(from), Some(to)) = (module.get(..=shared), to.get(..=shared)) {
                arrows.push(Arrow { by: module.clone(), line, from: from.to_vec(), to: to.to_vec() });
            }
        }
    }
    arrows
}

/// The module which has what a path leads to, as seen from the module `at`.
fn home(modules: &Modules, mut at: Names, path: &[String]) -> Names {
    for name in path {
        match name.as_str() {
            "crate" => at.clear(),
            "super" => _ = at.pop(),
            "self" => {}
            _ => {
                let below = [&at[..], std::slice::from_ref(name)].concat();
                if !modules.contains_key(&below) {
                    return imported(modules, &at, name).map_or(at.clone(), |path| home(modules, at, &path));
                }
                at = below;
            }
        }
    }
    at
}

/// The path by which a module has a name from a child.
fn imported(modules: &Modules, module: &Names, name: &str) -> Option<Names> {
    let code = modules.get(module)?;
    let imports = code.split(';').filter_map(|statement| Some(statement.rsplit_once("use ")?.1));
    let is_child = |path: &Names| modules.contains_key(&[&module[..], &path[..1]].concat());
    imports.flat_map(|import| paths(import).0).find(|path| path.last().is_some_and(|last| last == name) && is_child(path))
}

/// The paths that code begins with: one, or those of a group; and the code after them.
fn paths(code: &str) -> (Vec<Names>, &str) {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        let mut paths_of_group = Vec::new();
        loop {
            let (found, after) = paths(rest);
            paths_of_group.extend(found);
            let Some(end) = after.find([',', '}']) else { return (paths_of_group, "") };
            rest = &after[end + 1..];
            if after[end..].starts_with('}') {
                return (paths_of_group, rest);
            }
        }
    }
    let (name, rest) = code.split_at(code.find(|character| !is_name(character)).unwrap_or(code.len()));
    if name.is_empty() {
        return (Vec::new(), rest);
    }
    let (mut below, rest) = rest.strip_prefix("::").map_or((Vec::new(), rest), paths);
    if below.is_empty() {
        below.push(Names::new());
    }
    for path in &mut below {
        path.insert(0, name.to_owned());
    }
    (below, rest)
}

/// The shortest way along arrows from one module to another.
fn way(arrows: &[Arrow], from: &Names, to: &Names) -> Option<Names> {
    let mut before = BTreeMap::from([(from, from)]);
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front().filter(|at| *at != to) {
        for arrow in arrows.iter().filter(|arrow| arrow.from == *at) {
            before.entry(&arrow.to).or_insert_with(|| {
                next.push_back(&arrow.to);
                at
            });
        }
    }
    let mut way = vec![*before.get_key_value(to)?.0];
    while way.last() != Some(&from) {
        way.push(before[way[way.len() - 1]]);
    }
    Some(way.into_iter().rev().filter_map(|module| module.last().cloned()).collect())
}

// === the scanner can find something ===

#[test]
fn a_circle_is_found_in_every_form_and_where_it_is_none_is_not() {
    let found = |sources: &[(&str, &str)]| -> Vec<String> {
        let modules = sources.iter().map(|(path, code)| (module(Path::new(path)).unwrap(), (*code).to_owned())).collect();
        circles(&modules).into_iter().map(|(by, (line, _))| format!("{}:{line}", by.join("/"))).collect()
    };
    let (parent, takes_b, takes_a) =
        (("src/x.rs", ""), ("src/x/a.rs", "use super::b::B;"), ("src/x/b.rs", "\nuse super::a::A;"));
    assert_eq!(found(&[parent, takes_b, takes_a]), ["x/a:1", "x/b:2"]);
    assert_eq!(found(&[parent, takes_b, ("src/x/b.rs", "fn f() -> crate::x::a::A {}")]), ["x/a:1", "x/b:1"]);
    assert_eq!(
        found(&[parent, takes_b, ("src/x/b.rs", ""), ("src/x/b/c.rs", "use super::super::a::A;")]),
        ["x/a:1", "x/b/c:1"]
    );
    let third = ("src/x/b.rs", "use super::{\n    c::{self, C as D},\n};");
    assert_eq!(found(&[parent, takes_b, third, ("src/x/c.rs", "use crate::{x::{y, a}, z};")]), ["x/a:1", "x/b:1", "x/c:1"]);
    assert_eq!(
        found(&[("src/x.rs", "mod a;\npub use a::A;\n"), takes_b, ("src/x/b.rs", "use super::A;")]),
        ["x/a:1", "x/b:1"]
    );

    assert_eq!(found(&[parent, takes_b, ("src/x/b.rs", "")]), [""; 0]);
    assert_eq!(found(&[("src/x.rs", "use a::A;"), ("src/x/a.rs", "use super::X;")]), [""; 0], "a parent and its child");
    assert_eq!(found(&[("src/x.rs", "use y::A;"), takes_b, ("src/x/b.rs", "use super::A;")]), [""; 0], "a crate's own");
}
