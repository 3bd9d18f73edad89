//! Where the requests of an area come in: each is done by a worker of the area, under the name of its operation.

use std::future::Future;

use bowerbird_nats::{Problem, answer::Call};

use crate::requests::Pool;

/// Has one operation of an area done by its workers. `R` is what the area's operations work with.
#[derive(Clone)]
pub(crate) struct Desk<R> {
    requests: R,
    workers: Pool,
    operation: &'static str,
}

impl<R> Desk<R> {
    /// A desk for this operation, `area.name`.
    pub(crate) fn new(requests: R, workers: Pool, operation: &'static str) -> Self {
        Desk { requests, workers, operation }
    }

    /// Has a call done before its deadline.
    pub(crate) async fn serve<O, T, Fut>(self, call: Call<O>, operation: impl FnOnce(R, Call<O>) -> Fut) -> Result<T, Problem>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let (account, deadline) = (call.caller.map(|caller| caller.account_id), call.deadline);
        self.workers.run(self.operation, account, deadline, operation(self.requests, call)).await
    }
}
