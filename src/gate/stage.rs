//! The glue that lets `tower::ServiceBuilder` list the stages of the gate top to bottom, in the order in which a request
//! meets them, with nothing boxed and nothing polled by hand. They share one call, which stays where it is.

use std::future::Future;

use tower::Layer;

use super::{Outcome, call::Call};

/// What comes after a stage: the rest of the stack.
pub trait Next: Send + Sync {
    /// Passes the call on.
    fn call(&self, call: &mut Call) -> impl Future<Output = Outcome> + Send;
}

/// One step of the gate. It may answer itself, or pass the call to `next` and change what comes back.
pub trait Stage: Send + Sync {
    /// Handles one call.
    fn handle(&self, call: &mut Call, next: &impl Next) -> impl Future<Output = Outcome> + Send;
}

/// A stage and what comes after it.
pub struct Then<S, N> {
    stage: S,
    next: N,
}

/// Puts a stage into a `ServiceBuilder`.
pub struct StageLayer<S>(S);

/// Puts `stage` into a `ServiceBuilder`.
pub fn stage<S: Stage + Clone>(stage: S) -> StageLayer<S> {
    StageLayer(stage)
}

impl<S: Stage, N: Next> Next for Then<S, N> {
    async fn call(&self, call: &mut Call) -> Outcome {
        self.stage.handle(call, &self.next).await
    }
}

impl<S: Stage + Clone, N> Layer<N> for StageLayer<S> {
    type Service = Then<S, N>;

    fn layer(&self, next: N) -> Then<S, N> {
        Then { stage: self.0.clone(), next }
    }
}
