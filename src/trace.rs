//! Where a request stands in a distributed trace, and the spans of those that are sampled, on their way to whoever exports
//! them.
//!
//! Promised: a caller's trace goes on as the caller sampled it, and a new one is sampled by its id, so that all who use the
//! same ratio sample the same traces; whoever hands spans over never waits, and spans that find no room are counted. Where
//! the feature `otel` is off there is no [`Tracer`], and whatever needs one is compiled to nothing.

use hyper::HeaderMap;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

mod context;
mod span;

pub use context::{Context, SpanId, TraceId};
pub use span::{Attributes, Kind, Span, Value};

/// Requests whose spans wait to be exported. At some 2 KiB each they hold 4 MiB.
const MAX_QUEUED: usize = 2048;

/// The bits of a trace's id that are random for sure, by which it is sampled (W3C Trace Context Level 2, section 3.2.2.3).
const RANDOM_BITS: u32 = 56;

/// Shows that this build can export.
#[cfg(feature = "otel")]
pub type Exporting = ();
/// Nothing shows that this build could export, so that there is no value of whatever holds this.
#[cfg(not(feature = "otel"))]
pub type Exporting = std::convert::Infallible;

/// The spans of one request.
pub type Spans = Vec<Span>;

/// Begins traces, and takes their spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    queue: mpsc::Sender<Spans>,
    /// Random parts of ids below this are not sampled.
    sampled_from: u64,
    dropped: Counter,
    exporting: Exporting,
}

/// Where one request stands: in its caller's trace, in one of ours, or in none.
#[derive(Clone, Copy, Default)]
pub struct Trace {
    caller: Option<Context>,
    own: Option<Own>,
}

/// Our part of a trace.
#[derive(Clone, Copy)]
pub struct Own {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// The span of the whole request.
    pub server: SpanId,
    /// The span of sending it upstream, and what the upstream is told.
    pub sent: Context,
    /// Without it there would be one in builds that have no tracer.
    _exporting: Exporting,
}

// === impl Tracer ===

impl Tracer {
    /// Samples `ratio` (0 to 1) of the traces that begin here. The spans are to be taken from the receiver; `dropped` counts
    /// those that find no room.
    pub fn new(ratio: f64, dropped: Counter, exporting: Exporting) -> (Self, mpsc::Receiver<Spans>) {
        let (queue, spans) = mpsc::channel(MAX_QUEUED);
        (Self { queue, sampled_from: sampled_from(ratio), dropped, exporting }, spans)
    }

    /// Begins our part of a trace: the caller's, or a new one.
    fn begin(&self, caller: Option<Context>) -> Own {
        let (trace, flags) = caller.map_or_else(|| self.sample(), |caller| (caller.trace, caller.flags));
        let sent = Context { trace, span: SpanId::random(), flags };
        Own { trace, parent: caller.map(|caller| caller.span), server: SpanId::random(), sent, _exporting: self.exporting }
    }

    /// A new trace, and its flags.
    fn sample(&self) -> (TraceId, u8) {
        let trace = TraceId::random();
        (trace, Context::flags_of(trace.random_part(RANDOM_BITS) >= self.sampled_from))
    }

    /// Hands over the spans of a request.
    pub fn export(&self, spans: Spans) {
        if let Err(refused) = self.queue.try_send(spans) {
            self.dropped.inc_by(refused.into_inner().len() as u64);
        }
    }
}

/// The least random part that is sampled.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2⁵⁶")]
fn sampled_from(ratio: f64) -> u64 {
    ((1.0 - ratio.clamp(0.0, 1.0)) * 2_f64.powi(RANDOM_BITS.cast_signed())) as u64
}

// === impl Trace ===

impl Trace {
    /// What the head of a request says, and what a tracer makes of it.
    pub fn of(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        let caller = Context::of(headers);
        Self { caller, own: tracer.map(|tracer| tracer.begin(caller)) }
    }

    /// The trace, if there is one.
    pub fn id(&self) -> Option<TraceId> {
        self.own.map(|own| own.trace).or_else(|| self.caller.map(|caller| caller.trace))
    }

    /// Our part of it, where spans are wanted.
    pub fn sampled(&self) -> Option<Own> {
        self.own.filter(|own| own.sent.is_sampled())
    }

    /// Tells the upstream; where nobody traces, whatever the caller told goes on untouched.
    pub fn tell(&self, headers: &mut HeaderMap) {
        if let Some(own) = self.own {
            context::tell(headers, own.sent, own.parent.is_some());
        }
    }
}

#[cfg(test)]
#[cfg(feature = "otel")]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_new_traces_is_sampled_and_a_callers_word_holds() {
        let sampled = |ratio, caller: Option<Context>| {
            let (tracer, _spans) = Tracer::new(ratio, Counter::default(), ());
            (0..4000).filter(|_| tracer.begin(caller).sent.is_sampled()).count()
        };
        assert_eq!((sampled(0.0, None), sampled(1.0, None)), (0, 4000));
        let quarter = sampled(0.25, None);
        assert!((800..1200).contains(&quarter), "{quarter}");
        let caller = |flags| Some(Context { trace: TraceId::random(), span: SpanId::random(), flags });
        assert_eq!((sampled(0.0, caller(1)), sampled(1.0, caller(0))), (4000, 0));
    }

    #[test]
    fn spans_that_find_no_room_are_counted_and_nobody_waits() {
        let dropped = Counter::default();
        let (tracer, mut spans) = Tracer::new(1.0, dropped.clone(), ());
        (0..MAX_QUEUED + 3).for_each(|_| tracer.export(vec![Span::default(), Span::default()]));
        assert_eq!(dropped.get(), 6);
        assert_eq!(std::iter::from_fn(|| spans.try_recv().ok()).count(), MAX_QUEUED);
    }
}
