//! RFC 9113 and RFC 7541 case by case: what a client sends after its preface, and how the gate takes it, with and without
//! TLS. Where an RFC leaves the reaction open, the case says which one is ours. Where it wants the connection ended, it is;
//! the error that is named is mostly PROTOCOL_ERROR, also where there would be a more telling one, and nothing but a log
//! depends on it.
//! The one waiver: a pseudo-field among trailers is dropped, not refused (section 8.1). No trailer is merged into a head, so
//! that it can mean nothing to anyone.

use std::time::Duration;

use cxgate::config::ClientCertificates;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    certificates::Authority,
    http2::{Frames, GOAWAY, HEADERS, PING, RST_STREAM, frame},
    stub_upstream::StubUpstream,
    test_gate::TestGate,
};

mod fields;
mod frames;
mod streams;

const CHAT: &str = "/api/v2/engage/webchat";

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;

/// END_STREAM, END_HEADERS, PADDED and PRIORITY; ACK.
const END: u8 = 0x1;
const HEAD: u8 = 0x4;
const PADDED: u8 = 0x8;
const WEIGHED: u8 = 0x20;
const ACK: u8 = 0x1;

/// What a case sends last, to learn that all before it was taken.
const MARK: &[u8] = b"the mark";

/// How long a reaction may take to come; a case that waits for one that does not come fails after it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Section, what is sent, the bytes, and what must come of it.
type Case = (&'static str, &'static str, Vec<u8>, Reaction);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// The connection ends with this error.
    Ends(u32),
    /// This stream ends with this error, and the connection lives on.
    Resets(u32, u32),
    /// The request of this stream is answered with 200.
    Answers(u32),
    /// The request of this stream is answered, with another status.
    Refuses(u32),
    /// Nothing: the next PING is answered.
    GoesOn,
    /// The connection is closed without a word.
    Closes,
    /// None of these, in time.
    Silence,
}

use Reaction::{Answers, Closes, Ends, GoesOn, Refuses, Resets, Silence};

/// What becomes of a case.
async fn reaction<S: AsyncRead + AsyncWrite + Unpin>(stream: S, bytes: &[u8], expected: Reaction) -> Reaction {
    let mut client = Frames(stream);
    // Where the gate closes early, what it said is what counts.
    let _ = client.send(&[bytes, &frame(PING, 0, 0, MARK)].concat()).await;
    let mut ended = Closes;
    let watched = async {
        loop {
            let Some((kind, flags, stream, payload)) = client.next_with_flags().await else { return ended };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let seen = match kind {
                GOAWAY if code(4) != NO_ERROR => {
                    ended = Ends(code(4));
                    continue;
                }
                RST_STREAM if code(0) != NO_ERROR => Resets(stream, code(0)),
                // 200 in the static table (RFC 7541, appendix A).
                HEADERS if payload[0] == 0x88 => Answers(stream),
                HEADERS => Refuses(stream),
                PING if flags == ACK && payload == MARK => GoesOn,
                _ => continue,
            };
            // An answer may come before the reaction to what followed its request, and a PING is answered at once.
            let is_early = matches!(seen, Answers(_) | GoesOn) && seen != expected;
            if !is_early {
                return seen;
            }
        }
    };
    timeout(PATIENCE, watched).await.unwrap_or(Silence)
}

fn cases() -> Vec<Case> {
    [frames::cases(), streams::cases(), fields::cases()].concat()
}

#[tokio::test]
async fn every_case_of_the_standard_gets_its_reaction_with_and_without_tls() {
    let upstream = StubUpstream::start().await;
    let authority = Authority::new();
    let tls = authority.listener(&authority.sign("gate"), ClientCertificates::None);
    let unlimited = |config: &mut cxgate::config::Config| config.routes[0].limits.clear();
    let plain = TestGate::start(upstream.address, |config| {
        unlimited(config);
        config.listen.h2c = true;
    });
    let secure = TestGate::start(upstream.address, |config| {
        unlimited(config);
        config.listen.tls = Some(tls);
    });
    let cases = cases();
    let mut wrong = Vec::new();
    for (section, what, bytes, expected) in &cases {
        let by_plain = reaction(TcpStream::connect(plain.proxy).await.unwrap(), bytes, *expected).await;
        let stream = authority.connect(secure.proxy, &["h2"], None).await.unwrap();
        let by_tls = reaction(stream, bytes, *expected).await;
        if [by_plain, by_tls] != [*expected; 2] {
            wrong.push(format!("{section}, {what}: {by_plain:?} and by TLS {by_tls:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 120, "{} cases", cases.len());
}
