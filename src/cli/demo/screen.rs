//! What the demo prints: the heading with commands to try, a table that grows a line a second, and the sum at the end.
//!
//! On a terminal the table is one line, rewritten in place.

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
};

use super::{account::Moment, guests::Count};
use crate::config::Rate;

/// Takes the cursor to the line's begin and clears the line.
const REWRITE: &str = "\r\x1b[K";

/// Where the demo prints.
pub(super) struct Screen<W> {
    out: W,
    is_terminal: bool,
}

/// What is there to be tried.
pub(super) struct Heading {
    /// Where guests, and whoever reads this, send requests.
    pub(super) proxy: SocketAddr,
    /// Where the proxy tells how it is.
    pub(super) admin: SocketAddr,
    /// Where requests end up.
    pub(super) cxone: SocketAddr,
    /// The ports that were asked for and could not be had.
    pub(super) unavailable: Vec<u16>,
    /// Requests that each client may send at once.
    pub(super) capacity: u32,
    /// Requests a second that each client may send, before load has its say.
    pub(super) rate: Rate,
}

// === impl Screen ===

impl<W: Write> Screen<W> {
    /// Prints to `out`, for a person or for a file.
    pub(super) fn new(out: W, is_terminal: bool) -> Self {
        Self { out, is_terminal }
    }

    /// Begins.
    pub(super) fn begin(&mut self, heading: &Heading) -> io::Result<()> {
        write!(self.out, "{heading}\n{:>6}{:>10}{:>8}{:>17}", "time", "requests", "passed", "refused: guests")?;
        writeln!(self.out, "{:>8}{:>7}{:>8}{:>15}", "abuser", "cpu", "factor", "rate in force")?;
        self.out.flush()
    }

    /// Adds a line, or rewrites the one there is.
    pub(super) fn show(&mut self, moment: &Moment) -> io::Result<()> {
        if self.is_terminal {
            write!(self.out, "{REWRITE}{moment}")?;
        } else {
            writeln!(self.out, "{moment}")?;
        }
        self.out.flush()
    }

    /// Ends with what came of it.
    pub(super) fn end(&mut self, moment: &Moment) -> io::Result<()> {
        let Moment { ordinary, abuser, .. } = moment;
        let seconds = moment.elapsed.as_secs_f64();
        if self.is_terminal {
            writeln!(self.out, "{REWRITE}{moment}")?;
        }
        writeln!(self.out, "\nIn {seconds:.0} s:")?;
        for (who, Count { passed, refused, failed }) in [("ordinary guests", ordinary), ("abuser", abuser)] {
            writeln!(self.out, "  {who:<16}{passed:>6} passed,{refused:>6} refused,{failed:>4} failed")?;
        }
        self.out.flush()
    }
}

// === impl Heading ===

impl fmt::Display for Heading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, admin, cxone, unavailable, capacity, rate } = self;
        let rate = rate.as_f64();
        let guest = format!("http://{proxy}/api/v2/engage/webchat");
        writeln!(
            formatter,
            "cxgate in front of a stand-in for CXone: {capacity} requests at once and {rate} a second for each"
        )?;
        writeln!(formatter, "client, faster while CXone is idle and slower while it is busy.\n")?;
        for port in unavailable {
            writeln!(formatter, "  Port {port} is taken; a free one stands in for it.")?;
        }
        writeln!(formatter, "  proxy  http://{proxy}\n  admin  http://{admin}\n  CXone  http://{cxone}\n")?;
        writeln!(formatter, "See it live: http://{admin}/dashboard\n")?;
        writeln!(formatter, "Try from another terminal; Ctrl-C ends the demo here.\n")?;
        writeln!(formatter, "  # passes: 200, with what is left in X-RateLimit-Remaining")?;
        writeln!(formatter, "  curl -i {guest}/hello -H 'X-Client-Id: me'\n")?;
        writeln!(formatter, "  # 15 in a row: 200 turns into 429, with Retry-After and a JSON body")?;
        writeln!(
            formatter,
            "  curl -si -w '\\n' '{guest}/[1-15]' -H 'X-Client-Id: me' | grep -iE '^HTTP|remaining|retry'\n"
        )?;
        writeln!(formatter, "  # is it ready, and what has it counted")?;
        writeln!(formatter, "  curl -i http://{admin}/readyz")?;
        writeln!(formatter, "  curl -s http://{admin}/metrics | grep '^cxgate_decisions'")
    }
}

// === impl Moment ===

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ordinary, abuser, cpu_utilization, .. } = self;
        let seconds = self.elapsed.as_secs();
        let passed = ordinary.passed + abuser.passed;
        let requests = passed + ordinary.refused + abuser.refused + ordinary.failed + abuser.failed;
        write!(formatter, "{:>3}:{:02}{requests:>10}{passed:>8}{:>17}", seconds / 60, seconds % 60, ordinary.refused)?;
        write!(formatter, "{:>8}{cpu_utilization:>5.0} %", abuser.refused)?;
        match self.factor_and_rate {
            Some((factor, rate)) => write!(formatter, "{factor:>8.2}{rate:>13.2}/s"),
            None => write!(formatter, "{:>8}{:>15}", "-", "-"),
        }
    }
}
