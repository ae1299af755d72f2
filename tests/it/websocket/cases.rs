//! What RFC 6455, sections 5 to 7, lets a side send and what it does not, as bytes.
//!
//! The gate ends a socket whose client breaks the framing; what is only wrong inside of frames, or beside an extension that
//! was not negotiated, is the upstream's to judge and passes unchanged, and so does everything of the upstream's.

/// Some bytes of one side, and what becomes of them.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    /// How many of them pass; where not all do, the rest is answered with 1002.
    pub passes: usize,
}

/// Who sends: clients mask.
#[derive(Clone, Copy)]
pub enum Sender {
    Client,
    Server,
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Ends its message.
const FINAL: u8 = 0x80;

// === impl Sender ===

impl Sender {
    /// A frame whose length is written in the shortest way.
    pub fn frame(self, first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let length = payload.as_ref().len();
        let class = if length > 65_535 { 127 } else { length.min(126) };
        self.frame_of(first, u8::try_from(class).unwrap(), payload)
    }

    /// A frame whose length is written after `class`.
    fn frame_of(self, first: u8, class: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let payload = payload.as_ref();
        let (bit, mask): (u8, &[u8]) = match self {
            Self::Client => (0x80, &[0x37, 0xFA, 0x21, 0x3D]),
            Self::Server => (0, &[]),
        };
        let mut frame = vec![first, bit | class];
        match class {
            126 => frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes()),
            127 => frame.extend((payload.len() as u64).to_be_bytes()),
            _ => {}
        }
        frame.extend(mask);
        let masks = mask.iter().chain(mask.is_empty().then_some(&0)).cycle();
        frame.extend(payload.iter().zip(masks).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn final_frame(self, opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
        self.frame(FINAL | opcode, payload)
    }

    /// A message in pieces, each followed by `between`.
    fn fragments(self, opcode: u8, pieces: &[&[u8]], between: &[u8]) -> Vec<u8> {
        let frame = |(number, piece): (usize, &&[u8])| {
            let last = if number + 1 == pieces.len() { FINAL } else { 0 };
            [self.frame(last | if number == 0 { opcode } else { 0 }, piece), between.to_vec()].concat()
        };
        pieces.iter().enumerate().flat_map(frame).collect()
    }
}

// === impl Case ===

impl Case {
    fn whole(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), passes: bytes.len(), bytes }
    }

    /// `before` passes, `broken` does not.
    fn broken(name: impl Into<String>, before: &[u8], broken: &[u8]) -> Self {
        Self { name: name.into(), bytes: [before, broken].concat(), passes: before.len() }
    }
}

/// What either side may send, or the gate does not judge.
pub fn passing(sender: Sender) -> Vec<Case> {
    [lengths, fragments, controls, closes, texts, reserved_bits].into_iter().flat_map(|cases| cases(sender)).collect()
}

/// What a client may not send.
pub fn breaking() -> Vec<Case> {
    let (client, server) = (Sender::Client, Sender::Server);
    let hello = client.final_frame(TEXT, "hello");
    let begun = client.frame(TEXT, "begun");
    let mut cases = Vec::new();
    for opcode in (3..=7).chain(11..=15) {
        cases.push(Case::broken(format!("opcode {opcode}"), &[], &client.final_frame(opcode, "")));
        cases.push(Case::broken(format!("opcode {opcode} after a message"), &hello, &client.final_frame(opcode, "x")));
        cases.push(Case::broken(format!("opcode {opcode} in a message"), &begun, &client.final_frame(opcode, "x")));
    }
    for (name, opcode) in [("text", TEXT), ("binary", BINARY), ("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        cases.push(Case::broken(format!("a {name} frame without a mask"), &hello, &server.final_frame(opcode, "")));
    }
    for (name, opcode) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        cases.push(Case::broken(format!("a {name} of 126 bytes"), &hello, &client.final_frame(opcode, [b'x'; 126])));
        cases.push(Case::broken(
            format!("a {name} of 65536 bytes"),
            &[],
            &client.final_frame(opcode, vec![b'x'; 65_536])[..14],
        ));
        cases.push(Case::broken(format!("a {name} in fragments"), &hello, &client.frame(opcode, "x")));
    }
    let length_of_64_bits = [FINAL | BINARY, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    cases.extend([
        Case::broken("a continuation of nothing", &[], &client.frame(0, "x")),
        Case::broken("an end of nothing", &[], &client.final_frame(0, "x")),
        Case::broken("a continuation after the end", &hello, &client.frame(0, "x")),
        Case::broken("an end after the end", &client.fragments(TEXT, &[b"a", b"b"], b""), &client.final_frame(0, "x")),
        Case::broken("a text in a text", &begun, &client.final_frame(TEXT, "x")),
        Case::broken("a binary in a text", &begun, &client.final_frame(BINARY, "x")),
        Case::broken("a first fragment in a message", &begun, &client.frame(TEXT, "x")),
        Case::broken(
            "a text in a message with a ping between",
            &[begun.clone(), client.final_frame(PING, "")].concat(),
            &hello,
        ),
        Case::broken("a fragment without a mask", &begun, &server.final_frame(0, "x")),
        Case::broken("a length of 64 bits", &hello, &length_of_64_bits),
    ]);
    cases
}

fn lengths(sender: Sender) -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 124, 125, 126, 127, 128, 4095, 4096, 8192, 65_535, 65_536, 65_537, 200_000] {
        for (name, opcode) in [("text", TEXT), ("binary", BINARY)] {
            let payload: Vec<u8> = (0..length).map(|place: usize| b'a' + u8::try_from(place % 26).unwrap()).collect();
            cases.push(Case::whole(format!("a {name} of {length} bytes"), sender.final_frame(opcode, payload)));
        }
    }
    cases.push(Case::whole("a short length in 16 bits", sender.frame_of(FINAL | TEXT, 126, "hello")));
    cases.push(Case::whole("a short length in 64 bits", sender.frame_of(FINAL | TEXT, 127, "hello")));
    cases.push(Case::whole("a length of 16 bits in 64", sender.frame_of(FINAL | BINARY, 127, [1; 300])));
    let many = (0..200).flat_map(|number: u32| sender.final_frame(BINARY, number.to_be_bytes())).collect();
    cases.push(Case::whole("two hundred messages at once", many));
    cases.push(Case::whole("half a header at the end", [sender.final_frame(TEXT, "x"), vec![FINAL | TEXT]].concat()));
    let cut = sender.final_frame(TEXT, "cut short");
    cases.push(Case::whole("half a payload at the end", cut[..cut.len() - 3].to_vec()));
    cases
}

fn fragments(sender: Sender) -> Vec<Case> {
    let (ping, pong) = (sender.final_frame(PING, "ping"), sender.final_frame(PONG, ""));
    let both = [ping.clone(), pong.clone()].concat();
    let (longest, longer) = (vec![3; 65_535], vec![4; 65_536]);
    let tables: [(&str, &[&[u8]]); 6] = [
        ("two fragments", &[b"one ", b"two"]),
        ("five fragments", &[b"one ", b"two ", b"three ", b"four ", b"five"]),
        ("empty fragments", &[b"", b"", b""]),
        ("an empty first fragment", &[b"", b"rest"]),
        ("an empty last fragment", &[b"all", b""]),
        ("fragments of every length", &[&[1; 125], &[2; 126], &longest, &longer]),
    ];
    let between: [(&str, &[u8]); 3] =
        [("", b""), (" with a ping after each", &ping), (" with a ping and a pong after each", &both)];
    let mut cases = Vec::new();
    for (name, pieces) in tables {
        for (more, between) in between {
            cases.push(Case::whole(format!("{name}{more}"), sender.fragments(BINARY, pieces, between)));
        }
    }
    let unfinished = [sender.frame(TEXT, "never "), sender.frame(0, "finished")].concat();
    cases.push(Case::whole("a message that does not end", unfinished.clone()));
    cases
        .push(Case::whole("a close in a message", [unfinished, sender.final_frame(CLOSE, 1000_u16.to_be_bytes())].concat()));
    cases
}

fn controls(sender: Sender) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, opcode) in [("ping", PING), ("pong", PONG)] {
        for length in [0, 1, 125] {
            let frame = sender.final_frame(opcode, vec![0xFE; length]);
            cases.push(Case::whole(format!("a {name} of {length} bytes"), frame.clone()));
            cases.push(Case::whole(format!("ten times a {name} of {length} bytes"), frame.repeat(10)));
        }
    }
    cases
}

fn closes(sender: Sender) -> Vec<Case> {
    // Of the last ones none may be sent; that is for the other end to say.
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999, 0, 999, 1004, 1005,
        1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ];
    let close = |payload: &[u8]| sender.final_frame(CLOSE, payload);
    let with_reason = |reason: &[u8]| close(&[&1000_u16.to_be_bytes(), reason].concat());
    let mut cases: Vec<_> =
        codes.into_iter().map(|code: u16| Case::whole(format!("a close with {code}"), close(&code.to_be_bytes()))).collect();
    cases.extend([
        Case::whole("a close without a code", close(b"")),
        Case::whole("a close with half a code", close(&[3])),
        Case::whole("a close with a reason", with_reason("bye \u{1F44B}".as_bytes())),
        Case::whole("a close with the longest reason", with_reason(&[b'x'; 123])),
        Case::whole("a close with a reason that is not utf-8", with_reason(b"\xCE\xBA\xE1\xBD\xB9\xED\xA0\x80")),
        Case::whole("a ping after a close", [close(&[]), sender.final_frame(PING, "")].concat()),
        Case::whole("a message after a close", [close(&[]), sender.final_frame(TEXT, "late")].concat()),
        Case::whole("two closes", close(&[]).repeat(2)),
    ]);
    cases
}

fn texts(sender: Sender) -> Vec<Case> {
    let split = "κόσμε \u{1F44B}".as_bytes();
    let bytes: Vec<&[u8]> = split.chunks(1).collect();
    let invalid: [(&str, &[u8]); 6] = [
        ("an overlong slash", b"\xC0\xAF"),
        ("a surrogate", b"\xED\xA0\x80"),
        ("a code point beyond the last", b"\xF4\x90\x80\x80"),
        ("a lone continuation", b"\x80"),
        ("a character cut short", b"\xCE"),
        ("bytes that never are", b"\xFE\xFF"),
    ];
    let mut cases = vec![
        Case::whole("every byte of its characters in a fragment", sender.fragments(TEXT, &bytes, b"")),
        Case::whole("characters split by pings", sender.fragments(TEXT, &bytes, &sender.final_frame(PING, "x"))),
        Case::whole("a NUL and other controls", sender.final_frame(TEXT, "\0\u{1}\u{7f}\u{2028}")),
    ];
    cases.extend(invalid.map(|(name, bytes)| Case::whole(name, sender.final_frame(TEXT, bytes))));
    cases
}

fn reserved_bits(sender: Sender) -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        for (name, opcode) in [("text", TEXT), ("binary", BINARY), ("ping", PING)] {
            cases.push(Case::whole(
                format!("a {name} with reserved bits {bits:03b}"),
                sender.frame(FINAL | bits << 4 | opcode, "x"),
            ));
        }
    }
    let compressed = [sender.frame(0x40 | TEXT, [0xF2, 0x48]), sender.final_frame(0, [0xCD, 0xC9, 0xC9, 7, 0])].concat();
    cases.push(Case::whole("a compressed message in fragments", compressed));
    cases
}
