//! The client behind proxies, as far as trusted ones vouch for it: `X-Forwarded-For` and `Forwarded` (RFC 7239).
//!
//! Promised: each list is walked from its end, through trusted proxies, to the first address that is not one; what is no
//! address, obfuscated or malformed, ends the walk at the proxy that wrote it. Where both fields stand and name different
//! clients, neither is believed: a proxy writes one of them and passes the other as the client made it up.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
};
use ipnet::IpNet;

/// The addresses a request came through.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client behind `peer`: `peer` itself, unless it is in `trusted` and says otherwise.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_in(trusted, peer) {
        return peer;
    }
    let customary = lists(headers, &X_FORWARDED_FOR)
        .map(|lists| walk(peer, lists.rev().flat_map(|list| list.rsplit(',')).map(|entry| address(entry.trim())), trusted));
    let standard = lists(headers, &FORWARDED).map(|lists| {
        let hops = lists.rev().flat_map(|list| hops(list).unwrap_or_else(|| vec![None]).into_iter().rev());
        walk(peer, hops, trusted)
    });
    match (customary, standard) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// Whether one of `networks` holds `address`.
pub fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The values of a field, or `None` where it does not stand. One that is no text is an entry that is no address.
fn lists<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<impl DoubleEndedIterator<Item = &'a str>> {
    headers.contains_key(name).then(|| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("unknown")))
}

fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        if !is_in(trusted, client) {
            break;
        }
        let Some(address) = hop else { break };
        client = address;
    }
    client
}

/// An address as proxies write it in `X-Forwarded-For`: bare, in brackets, or with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = match entry.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None if entry.matches(':').count() == 1 => entry.split(':').next()?,
        None => entry,
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

// === Forwarded ===

/// What each element of a `Forwarded` list says of its `for` (RFC 7239, section 4): an address, or `None` where it names
/// none. `None` for a list that breaks the grammar: nobody can say where its elements end.
fn hops(list: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut rest = list;
    loop {
        let (hop, after) = element(rest)?;
        hops.push(hop);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(hops),
        }
    }
}

/// One element: pairs between semicolons, each name once. Returns what follows it.
fn element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let (mut hop, mut seen, mut rest) = (None, Vec::new(), text.trim_start_matches([' ', '\t']));
    loop {
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix('=')?)?;
        let name = name.to_ascii_lowercase();
        if name == "for" {
            hop = node(&value);
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix(';') {
            Some(next) => rest = next,
            None => return Some((hop, after)),
        }
    }
}

/// A token (RFC 9110, section 5.6.2), and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string (RFC 9110, section 5.6.4), unquoted, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, after)| (value.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[position + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// The address of a node (RFC 7239, section 6), with or without a port; IPv6 stands in brackets. `unknown` and obfuscated
/// identifiers have none.
fn node(text: &str) -> Option<IpAddr> {
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(is_node_port);
    let address = match text.find(']') {
        Some(end) => {
            let (bracketed, port) = text.split_at(end + 1);
            let bracketed = bracketed.strip_prefix('[')?.strip_suffix(']')?;
            let parsed = bracketed.parse().ok().map(IpAddr::V6)?;
            (port.is_empty() || is_port(port)).then_some(parsed)?
        }
        None => match text.split_once(':') {
            Some((address, port)) => is_node_port(port).then(|| address.parse().ok().map(IpAddr::V4))??,
            None => IpAddr::V4(text.parse().ok()?),
        },
    };
    Some(address.to_canonical())
}

fn is_node_port(port: &str) -> bool {
    let is_obfuscated =
        |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match port.strip_prefix('_') {
        Some(rest) => is_obfuscated(rest),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A hop as `Forwarded` has it: from whom, IPv6 in brackets and therefore in quotes, and by which scheme.
pub fn written(address: IpAddr, scheme: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address};proto={scheme}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\";proto={scheme}"),
    }
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    fn client(peer: &str, fields: &[(&str, &str)]) -> String {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_are_believed_only_through_trusted_proxies() {
        let cases = [
            ("198.51.100.1", &["203.0.113.9"][..], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("2001:db8:1::1", &["[2001:db8:9::5]:80"], "2001:db8:9::5"),
            ("10.0.0.1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        ];
        for (peer, lists, expected) in cases {
            let fields: Vec<_> = lists.iter().map(|list| ("x-forwarded-for", *list)).collect();
            assert_eq!(client(peer, &fields), expected, "{peer} {lists:?}");
        }
    }

    #[test]
    fn forwarded_elements_are_read_by_their_grammar_and_walked_the_same_way() {
        let cases = [
            ("198.51.100.1", &["for=203.0.113.9"][..], "198.51.100.1"),
            ("10.0.0.1", &["for=203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
            ("10.0.0.1", &["proto=https; for=203.0.113.9"], "10.0.0.1"),
            ("10.0.0.1", &["for=1.1.1.1, for=203.0.113.9, for=10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["for=1.1.1.1", "for=203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &[r#"for="203.0.113.9:4711""#], "203.0.113.9"),
            ("10.0.0.1", &[r#"for="203.0.113.9:_port""#], "203.0.113.9"),
            ("10.0.0.1", &[r#"for="[2001:db8:9::5]:80""#], "2001:db8:9::5"),
            ("10.0.0.1", &[r#"for="[2001:db8:9::5]""#], "2001:db8:9::5"),
            ("10.0.0.1", &[r#"for="20\3.0.113.9""#], "203.0.113.9"),
            ("10.0.0.1", &[r#"for="2001:db8:9::5""#], "10.0.0.1"),
            ("10.0.0.1", &["for=[2001:db8:9::5]"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9, for=_hidden"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9, for=unknown"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9, proto=http"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9;for=203.0.113.8"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &[r#"for="203.0.113.9"#], "10.0.0.1"),
            ("10.0.0.1", &[r#"for=1.1.1.1;x=", for=2.2.2.2", for=203.0.113.9"#], "203.0.113.9"),
            ("10.0.0.1", &[r#"for="203.0.113.9:""#], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "10.0.0.1"),
        ];
        for (peer, lists, expected) in cases {
            let fields: Vec<_> = lists.iter().map(|list| ("forwarded", *list)).collect();
            assert_eq!(client(peer, &fields), expected, "{peer} {lists:?}");
        }
    }

    #[test]
    fn two_fields_that_name_different_clients_are_both_not_believed() {
        let both = |one, other| client("10.0.0.1", &[("x-forwarded-for", one), ("forwarded", other)]);
        assert_eq!(both("203.0.113.9", "for=203.0.113.9"), "203.0.113.9");
        assert_eq!(both("203.0.113.9", "for=203.0.113.8"), "10.0.0.1");
        assert_eq!(both("203.0.113.9", "nonsense"), "10.0.0.1");
    }
}
