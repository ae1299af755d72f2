//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): a proxy says, before anything else, whose
//! connection it passes on.
//!
//! Promised: not a byte is read beyond the header; a header that is late, malformed or longer than [`MAX_HEADER_BYTES`]
//! ends the connection without an answer, because who asks is not known. Not promised: checksums and other extensions,
//! which are read past.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::Caps;

/// The longest header of version 1, with its line end.
const MAX_LINE_BYTES: usize = 107;

/// The longest header of version 2; addresses take 52 bytes, the rest are extensions.
const MAX_HEADER_BYTES: usize = 1024;

/// How version 2 begins: no other protocol does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whose connection it is: `peer`'s, or, where `peer` is one of `caps.proxies`, that of the client it names. `None` where it
/// names nobody in time.
pub(super) async fn client(stream: &mut (impl AsyncRead + Unpin), peer: SocketAddr, caps: &Caps) -> Option<SocketAddr> {
    let address = peer.ip().to_canonical();
    if !caps.proxies.iter().any(|network| network.contains(&address)) {
        return Some(peer);
    }
    timeout(caps.header_timeout, read(stream, peer)).await.ok()?.ok()
}

/// Reads the header and returns the client it names; `peer` where it says that the proxy speaks for itself.
async fn read(stream: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> io::Result<SocketAddr> {
    // No header is shorter.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    let named = if start == *SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if length > MAX_HEADER_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut addresses = vec![0; length];
        stream.read_exact(&mut addresses).await?;
        binary([fixed[0], fixed[1]], &addresses)
    } else {
        let mut line = start.to_vec();
        while line.last() != Some(&b'\n') && line.len() < MAX_LINE_BYTES && line.starts_with(b"PROXY ") {
            line.push(stream.read_u8().await?);
        }
        text(&line)
    };
    match named {
        Some(Source::Client(client)) => Ok(client),
        Some(Source::Proxy) => Ok(peer),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whose connection it is.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// Of a client behind the proxy.
    Client(SocketAddr),
    /// The proxy's own (a health check), or of a kind that has no address here.
    Proxy,
}

/// Version 1, from `PROXY` to the line end; `None` where it breaks the grammar.
fn text(line: &[u8]) -> Option<Source> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Source::Proxy);
    }
    let fields: Vec<_> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else { return None };
    let source: IpAddr = source.parse().ok()?;
    let destination: IpAddr = destination.parse().ok()?;
    let is_family = |address: IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (source_port, _) = (port(source_port)?, port(destination_port)?);
    (is_family(source) && is_family(destination)).then(|| Source::Client(SocketAddr::new(source, source_port)))
}

/// Version 2: version with command, family with transport, and what follows the length.
fn binary([version_command, family]: [u8; 2], addresses: &[u8]) -> Option<Source> {
    match version_command {
        0x20 => return Some(Source::Proxy),
        0x21 => {}
        _ => return None,
    }
    match family {
        // UNSPEC, and UNIX sockets, which have no address that could be told.
        0x00 | 0x31 | 0x32 => Some(Source::Proxy),
        0x11 => {
            let [source, _destination] = *addresses.first_chunk::<8>()?.as_chunks::<4>().0.first_chunk::<2>()?;
            Some(Source::Client((Ipv4Addr::from(source), port_at(addresses, 8)?).into()))
        }
        0x21 => {
            let source = *addresses.first_chunk::<16>()?;
            Some(Source::Client((Ipv6Addr::from(source), port_at(addresses, 32)?).into()))
        }
        _ => None,
    }
}

/// The source port, behind which the destination's must stand too.
fn port_at(addresses: &[u8], offset: usize) -> Option<u16> {
    let ports = addresses.get(offset..offset + 4)?;
    Some(u16::from_be_bytes([ports[0], ports[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1:4000";

    /// Who is named, and what is left for whoever reads next.
    async fn named(header: &[u8]) -> Result<String, io::ErrorKind> {
        let stream = [header, b"GET /"].concat();
        let mut rest = stream.as_slice();
        let client = read(&mut rest, PEER.parse().unwrap()).await.map_err(|error| error.kind())?;
        assert_eq!(rest, b"GET /", "not a byte too many is read");
        Ok(client.to_string())
    }

    #[tokio::test]
    async fn a_line_names_the_client_or_ends_the_connection() {
        let cases: [(&[u8], Option<&str>); 12] = [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 80\r\n", Some("203.0.113.9:5000")),
            (b"PROXY TCP6 2001:db8::9 2001:db8::1 5000 80\r\n", Some("[2001:db8::9]:5000")),
            (b"PROXY UNKNOWN\r\n", Some(PEER)),
            (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n", Some(PEER)),
            (b"PROXY TCP4 2001:db8::9 2001:db8::1 5000 80\r\n", None),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 70000 80\r\n", None),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 +5000 80\r\n", None),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 5000\r\n", None),
            (b"PROXY TCP4  203.0.113.9 10.0.0.1 5000 80\r\n", None),
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 80\n", None),
            (b"PROXY UDP4 203.0.113.9 10.0.0.1 5000 80\r\n", None),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ];
        for (header, expected) in cases {
            let expected = expected.map(str::to_owned).ok_or(io::ErrorKind::InvalidData);
            assert_eq!(named(header).await, expected, "{}", String::from_utf8_lossy(header));
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(named(&endless).await, Err(io::ErrorKind::InvalidData));
    }

    #[tokio::test]
    async fn a_binary_header_names_the_client_or_ends_the_connection() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x13, 0x88, 0, 80];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&5000_u16.to_be_bytes());
        let with_extension = [v4.as_slice(), &[4, 0, 1, 0]].concat();
        let cases: [(u8, u8, &[u8], Option<&str>); 9] = [
            (0x21, 0x11, &v4, Some("203.0.113.9:5000")),
            (0x21, 0x11, &with_extension, Some("203.0.113.9:5000")),
            (0x21, 0x21, &v6, Some("[2001:db8::9]:5000")),
            (0x20, 0x00, &[], Some(PEER)),
            (0x21, 0x00, &[], Some(PEER)),
            (0x21, 0x11, &v4[..11], None),
            (0x21, 0x21, &v4, None),
            (0x11, 0x11, &v4, None),
            (0x21, 0x12, &v4, None),
        ];
        for (command, family, addresses, expected) in cases {
            let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
            let header = [SIGNATURE.as_slice(), &[command, family], &length, addresses].concat();
            let expected = expected.map(str::to_owned).ok_or(io::ErrorKind::InvalidData);
            assert_eq!(named(&header).await, expected, "{command:x} {family:x} {addresses:?}");
        }
        let too_long = [SIGNATURE.as_slice(), &[0x20, 0], &1025_u16.to_be_bytes(), &[0; 1025]].concat();
        assert_eq!(named(&too_long).await, Err(io::ErrorKind::InvalidData));
    }

    #[tokio::test]
    async fn a_header_cut_short_is_none() {
        let whole = b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 80\r\n";
        for length in 0..whole.len() {
            let mut cut = &whole[..length];
            assert!(read(&mut cut, PEER.parse().unwrap()).await.is_err(), "{length} bytes are no header");
        }
    }
}
