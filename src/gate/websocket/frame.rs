//! Frame headers of the WebSocket protocol (RFC 6455, section 5.2), read but never written: frames are relayed as they came.
//!
//! Pure and incremental: bytes may come in any pieces. Two readers for two purposes: [`Header::parse`] looks at a frame
//! before it goes on, [`Boundaries`] follows a stream that goes on anyway.

use arrayvec::ArrayVec;

/// The longest header: two bytes, eight of length, four of mask.
pub const MAX_HEADER_BYTES: usize = 14;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame ends its message.
    pub is_final: bool,
    /// Whether a reserved bit is set: an extension such as permessage-deflate has changed the payload.
    pub is_extended: bool,
    /// What kind of frame it is, 0 to 15.
    pub opcode: u8,
    /// The mask, if there is one.
    pub mask: Option<[u8; 4]>,
    /// Bytes of this header.
    pub length: usize,
    /// Bytes of payload behind it.
    pub payload: u64,
}

/// What a frame is to its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It begins a message.
    Begin {
        /// Whether the message is text.
        is_text: bool,
    },
    /// It continues the message.
    Continue,
    /// It belongs to none: ping, pong or close.
    Control,
}

/// What a client may not send (RFC 6455, sections 5.1, 5.2, 5.4 and 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolError;

/// Holds a client's frames to the rules that span them.
#[derive(Debug, Default)]
pub struct Sequence {
    in_message: bool,
}

/// Where frames end in a stream of them.
#[derive(Debug, Default)]
pub struct Boundaries {
    header: ArrayVec<u8, MAX_HEADER_BYTES>,
    payload: u64,
}

// === impl Header ===

impl Header {
    /// The header at the beginning of `bytes`; `None` where there is not all of it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = match second & 0x7F {
            126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (u64::from(length), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            rest.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?
        };
        Some(Self {
            is_final: first & 0x80 != 0,
            is_extended: first & 0x70 != 0,
            opcode: first & 0x0F,
            mask,
            length: bytes.len() - rest.len(),
            payload,
        })
    }

    /// Bytes of the whole frame.
    pub fn total(&self) -> u64 {
        self.payload.saturating_add(self.length as u64)
    }
}

// === impl Sequence ===

impl Sequence {
    /// What the next frame of a client is to its message.
    pub fn next(&mut self, header: &Header) -> Result<Role, ProtocolError> {
        let role = match header.opcode {
            0 if self.in_message => Role::Continue,
            1 | 2 if !self.in_message => Role::Begin { is_text: header.opcode == 1 },
            8..=10 if header.is_final && header.payload <= MAX_CONTROL_BYTES => Role::Control,
            _ => return Err(ProtocolError),
        };
        // A length has 63 bits, and a client masks everything.
        if header.mask.is_none() || header.payload >> 63 != 0 {
            return Err(ProtocolError);
        }
        if role != Role::Control {
            self.in_message = !header.is_final;
        }
        Ok(role)
    }
}

// === impl Boundaries ===

impl Boundaries {
    /// Follows the next `bytes`; returns how many of them lie before the last end of a frame, if there is one in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut last_end = None;
        let mut position = 0;
        while let Some(&byte) = bytes.get(position) {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len() - position);
                position += skipped;
                self.payload -= skipped as u64;
            } else {
                position += 1;
                // A full header is always parsed, so that there is room for the byte.
                if self.header.try_push(byte).is_err() {
                    self.header.clear();
                }
                let Some(header) = Header::parse(&self.header) else { continue };
                self.payload = header.payload;
                self.header.clear();
            }
            if self.payload == 0 {
                last_end = Some(position);
            }
        }
        last_end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn header(is_final: bool, opcode: u8, length: usize, payload: u64) -> Header {
        Header { is_final, is_extended: false, opcode, mask: Some(MASK), length, payload }
    }

    #[test]
    fn a_header_is_read_as_the_standard_has_it() {
        let cases: [(&[u8], Option<Header>); 9] = [
            (b"", None),
            (b"\x81", None),
            (b"\x81\x85\x37\xfa\x21", None),
            (b"\x81\x85\x37\xfa\x21\x3d\x7f", Some(header(true, 1, 6, 5))),
            (b"\x01\x85\x37\xfa\x21\x3d", Some(header(false, 1, 6, 5))),
            (b"\x81\x05Hello", Some(Header { mask: None, ..header(true, 1, 2, 5) })),
            (b"\xc2\x80\x37\xfa\x21\x3d", Some(Header { is_extended: true, ..header(true, 2, 6, 0) })),
            (b"\x82\xfe\x01\x00\x37\xfa\x21\x3d", Some(header(true, 2, 8, 256))),
            (b"\x82\xff\0\0\0\0\0\x01\0\0\x37\xfa\x21\x3d", Some(header(true, 2, 14, 65_536))),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Header::parse(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn frames_that_break_the_rules_are_told_from_those_that_do_not() {
        let frame = |is_final, opcode| header(is_final, opcode, 6, 5);
        let unmasked = Header { mask: None, ..frame(true, 1) };
        let (begin, control) = (Role::Begin { is_text: true }, Role::Control);
        let cases: [(&[Header], Result<Role, ProtocolError>); 14] = [
            (&[frame(true, 1)], Ok(begin)),
            (&[frame(true, 2)], Ok(Role::Begin { is_text: false })),
            (&[frame(true, 1), frame(true, 1)], Ok(begin)),
            (&[frame(false, 1), frame(false, 0), frame(true, 0)], Ok(Role::Continue)),
            (&[frame(false, 1), frame(true, 9)], Ok(control)),
            (&[frame(false, 1), frame(true, 9), frame(true, 0), frame(true, 1)], Ok(begin)),
            (&[frame(true, 8)], Ok(control)),
            (&[unmasked], Err(ProtocolError)),
            (&[frame(true, 0)], Err(ProtocolError)),
            (&[frame(false, 1), frame(true, 2)], Err(ProtocolError)),
            (&[frame(true, 3)], Err(ProtocolError)),
            (&[frame(true, 11)], Err(ProtocolError)),
            (&[frame(false, 9)], Err(ProtocolError)),
            (&[header(true, 9, 8, 126)], Err(ProtocolError)),
        ];
        for (frames, expected) in cases {
            let mut sequence = Sequence::default();
            let roles: Vec<_> = frames.iter().map(|frame| sequence.next(frame)).collect();
            assert_eq!(roles.last(), Some(&expected), "{frames:?}");
        }
    }

    /// Frames of these payloads, masked or not, and where each of them ends.
    fn frames(payloads: &[(usize, bool)]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (length, is_masked) in payloads {
            let mask = if *is_masked { 0x80 } else { 0 };
            bytes.push(0x82);
            match u16::try_from(*length) {
                Ok(short @ 0..=125) => bytes.push(mask | short.to_be_bytes()[1]),
                Ok(medium) => {
                    bytes.push(mask | 0x7E);
                    bytes.extend(medium.to_be_bytes());
                }
                Err(_) => {
                    bytes.push(mask | 0x7F);
                    bytes.extend((*length as u64).to_be_bytes());
                }
            }
            bytes.extend(if *is_masked { MASK.as_slice() } else { &[] });
            bytes.extend(std::iter::repeat_n(0x81, *length));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn the_ends_of_frames_are_found_however_the_bytes_are_cut(
            payloads in prop::collection::vec((prop_oneof![0..4_usize, 124..130_usize, 65_530..65_540_usize], any::<bool>()), 1..6),
            cuts in prop::collection::vec(1..70_000_usize, 1..12),
        ) {
            let (bytes, ends) = frames(&payloads);
            let mut boundaries = Boundaries::default();
            let (mut position, mut cuts) = (0, cuts.into_iter().cycle());
            while position < bytes.len() {
                let next = (position + cuts.next().unwrap()).min(bytes.len());
                let expected = ends.iter().rev().find(|end| (position + 1..=next).contains(end)).copied();
                let found = boundaries.feed(&bytes[position..next]);
                prop_assert_eq!(found.map(|found| found + position), expected);
                position = next;
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut sequence = Sequence::default();
            let mut boundaries = Boundaries::default();
            boundaries.feed(&bytes);
            if let Some(header) = Header::parse(&bytes) {
                prop_assert!(header.length <= MAX_HEADER_BYTES);
                prop_assert!(Header::parse(&bytes[..header.length - 1]).is_none(), "a shorter prefix is no header");
                let _ = sequence.next(&header);
            }
        }
    }
}
