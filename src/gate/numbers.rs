//! Numbers and addresses as text, for heads.

use std::{
    fmt::{self, Write},
    net::IpAddr,
};

use arrayvec::ArrayString;

/// The longest of addresses as text: one of the sixth version that ends as one of the fourth.
const LONGEST_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

/// Writes a number.
pub(super) fn push(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// An address as text. That of the fourth version is written by hand, at a tenth of the cost.
pub(super) fn address(address: IpAddr) -> ArrayString<LONGEST_ADDRESS> {
    let mut text = ArrayString::new();
    // Every address has room there, so that writing it cannot fail.
    _ = match address {
        IpAddr::V4(address) => put_octets(&mut text, address.octets()),
        IpAddr::V6(address) => write!(text, "{address}"),
    };
    text
}

fn put_octets(text: &mut impl Write, octets: [u8; 4]) -> fmt::Result {
    for (position, octet) in octets.into_iter().enumerate() {
        text.write_str(if position == 0 { "" } else { "." })?;
        text.write_str(itoa::Buffer::new().format(octet))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_written_as_it_is_read() {
        for octet in 0..=255 {
            for address in [[octet, 0, 9, 10], [1, octet, octet, 255], [0, 100, 99, octet]].map(IpAddr::from) {
                assert_eq!(*self::address(address), address.to_string());
            }
        }
        for address in ["2001:db8::1", "::ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert_eq!(self::address(address.parse().unwrap()).as_str(), address);
        }
    }

    #[test]
    fn every_number_is_written_as_it_is_read() {
        for number in (0..1000).chain([999_999_999_999_999, u64::MAX]) {
            let mut text = "=".to_owned();
            push(&mut text, number);
            assert_eq!(text, format!("={number}"));
        }
    }
}
