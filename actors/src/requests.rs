//! Requests of an area: a pool of workers, any free one takes the next, and a bound on all that waits.
//!
//! Unrelated accounts never wait for each other because of routing: there is none. What bounds the intake: the queue of
//! the pool (beyond it the answer is `unavailable` at once), a cap per account, and each request's own deadline. A worker
//! is an actor of the tree with at most one job in its mailbox. No answer is lost silently: a job that panics is answered
//! `internal`, and so is one whose worker is killed under it, as the reply port is dropped with the job.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bowerbird_lifecycle::Clock;
use bowerbird_nats::{AccountId, Code, Problem, answer::Limit};
use futures_util::{FutureExt as _, future::BoxFuture};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, error};

use crate::{
    events::Bell,
    metrics::{Area, Meters, Operation, RequestResult},
    supervision::{Address, ChildSpec, Panicked, Supervisor},
};

/// Seconds after which another try makes sense when a pool is full.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that are worked on at once.
    pub workers: usize,
    /// Requests that may wait for a worker.
    pub queue: usize,
    /// Requests of one account, waiting or worked on.
    pub per_account: usize,
}

impl Default for Limits {
    /// Requests are short and spend their time in PostgreSQL, so some more workers than cores; the cap per account leaves
    /// room for others even when one account asks as fast as it can.
    fn default() -> Self {
        Limits { workers: 12, queue: 512, per_account: 128 }
    }
}

/// Takes the requests of one area. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    area: &'static str,
    limits: Limits,
    meters: Meters,
    bell: Bell,
    taken_in: AtomicUsize,
    by_account: Mutex<HashMap<AccountId, usize>>,
    /// One permit for each worker in `idle`.
    free: Semaphore,
    idle: Mutex<VecDeque<ActorRef<Job>>>,
}

/// A request on its way to a worker.
pub struct Job(BoxFuture<'static, ()>);

/// Executes one job at a time. Has nothing to lose.
struct Worker(Pool);

impl Pool {
    /// A pool for the requests of `area`. Nothing runs before [`Pool::child`] is part of the tree.
    pub fn new(area: &'static str, limits: Limits, meters: Meters, bell: Bell) -> Self {
        Pool(Arc::new(Inner {
            area,
            limits,
            meters,
            bell,
            taken_in: AtomicUsize::new(0),
            by_account: Mutex::default(),
            free: Semaphore::new(0),
            idle: Mutex::default(),
        }))
    }

    /// The workers, as a branch of the tree.
    pub fn child(&self, clock: &Clock) -> ChildSpec {
        let pool = self.clone();
        Supervisor::child("requests", clock.clone(), move || {
            (1..=pool.0.limits.workers)
                .map(|number| {
                    let pool = pool.clone();
                    ChildSpec::actor(format!("worker-{number}"), &Address::default(), move || (Worker(pool.clone()), ()))
                })
                .collect()
        })
    }

    /// The limit of the endpoints that hand their requests to this pool, which bounds them itself.
    pub fn endpoint_limit(&self) -> Limit {
        Limit { concurrency: self.0.limits.workers + self.0.limits.queue, queue: self.0.limits.queue }
    }

    /// Have `work` done by a worker before `deadline`. `operation` is `area.name`, for the metrics.
    ///
    /// Answers `unavailable` when the pool is full or no worker comes free in time, `too_many` when the account has too
    /// much in flight, `timeout` when the deadline passes while it is worked on (the work is dropped, its transaction
    /// rolls back), `internal` when it panics.
    pub fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        account: Option<AccountId>,
        deadline: Instant,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, Problem>> {
        // Boxed at once: it is moved to the worker, and callers should not grow by its size.
        let work = work.boxed();
        async move {
            let began = Instant::now();
            let outcome = self.admit_and_run(operation, account, deadline, work).await;
            let result = outcome.as_ref().map_or_else(|problem| problem.code.as_str(), |_| "ok");
            let meters = &self.0.meters.0;
            meters.requests.get_or_create(&RequestResult { operation, result }).inc();
            meters.request_seconds.get_or_create(&Operation { operation }).observe(began.elapsed().as_secs_f64());
            outcome
        }
        .boxed()
    }

    async fn admit_and_run<T: Send + 'static>(
        &self,
        operation: &'static str,
        account: Option<AccountId>,
        deadline: Instant,
        work: BoxFuture<'static, Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let _place = self.place(account)?;
        let (reply, answer) = oneshot::channel();
        let bell = self.0.bell.clone();
        let guarded = async move {
            let outcome = match timeout_at(deadline, AssertUnwindSafe(work).catch_unwind()).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(payload)) => {
                    error!(operation, panic = %Panicked::of(&*payload), "a request panicked");
                    Err(Problem::internal())
                }
                Err(_) => Err(Problem::new(Code::Timeout, "the request was not done in time; it may be sent again")),
            };
            // What was committed may have events in the outbox.
            bell.ring();
            // A caller that is gone does not need the answer.
            let _ = reply.send(outcome);
        };
        self.hand_out(Job(guarded.in_current_span().boxed()), deadline).await?;
        answer.await.unwrap_or_else(|_| {
            error!(operation, "a worker ended while it worked on a request");
            Err(Problem::internal())
        })
    }

    fn place(&self, account: Option<AccountId>) -> Result<Place, Problem> {
        let most = self.0.limits.workers + self.0.limits.queue;
        let room = |taken: usize| (taken < most).then_some(taken + 1);
        if self.0.taken_in.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return Err(full());
        }
        let mut place = Place { pool: self.clone(), account: None };
        self.waiting().inc();
        if let Some(account) = account {
            let mut by_account = self.0.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            let in_flight = by_account.entry(account).or_default();
            if *in_flight >= self.0.limits.per_account {
                let mut problem =
                    Problem::new(Code::TooMany, "this account has too many requests in flight; wait for some answers");
                problem.retry_after = Some(RETRY_AFTER_SECONDS);
                return Err(problem);
            }
            *in_flight += 1;
            place.account = Some(account);
        }
        Ok(place)
    }

    async fn hand_out(&self, mut job: Job, deadline: Instant) -> Result<(), Problem> {
        loop {
            let permit = timeout_at(deadline, self.0.free.acquire()).await;
            let Ok(Ok(permit)) = permit else { return Err(full()) };
            permit.forget();
            let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(worker) = idle else { continue };
            // A worker that died while idle is still in the list; its successor has a place of its own.
            match worker.cast(job) {
                Ok(()) => return Ok(()),
                Err(ractor::MessagingErr::SendErr(back)) => job = back,
                Err(_) => return Err(Problem::internal()),
            }
        }
    }

    fn waiting(&self) -> prometheus_client::metrics::gauge::Gauge {
        self.0.meters.0.requests_waiting.get_or_create(&Area { area: self.0.area }).clone()
    }
}

fn full() -> Problem {
    Problem::unavailable("too many requests are waiting; try again in a moment", RETRY_AFTER_SECONDS)
}

/// A place in the pool, given back when dropped.
struct Place {
    pool: Pool,
    account: Option<AccountId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.0.taken_in.fetch_sub(1, Ordering::AcqRel);
        self.pool.waiting().dec();
        if let Some(account) = self.account {
            let mut by_account = self.pool.0.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            if let Entry::Occupied(mut in_flight) = by_account.entry(account) {
                *in_flight.get_mut() -= 1;
                if *in_flight.get() == 0 {
                    in_flight.remove();
                }
            }
        }
    }
}

impl Worker {
    fn idle(&self, myself: ActorRef<Job>) {
        self.0.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(myself);
        self.0.0.free.add_permits(1);
    }
}

impl Actor for Worker {
    type Msg = Job;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Job>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, myself: ActorRef<Job>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.idle(myself);
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Job>, job: Job, (): &mut ()) -> Result<(), ActorProcessingErr> {
        job.0.await;
        self.idle(myself);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowerbird_lifecycle::Metrics;

    use super::*;
    use crate::supervision;

    const OPERATION: &str = "test.do";

    async fn pool(limits: Limits) -> (Pool, supervision::Root) {
        let pool = Pool::new("test", limits, Meters::register(&Metrics::default()), Bell::default());
        let root = supervision::start("root", vec![pool.child(&Clock::system())], Clock::system()).await.unwrap();
        (pool, root)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn somebody() -> AccountId {
        AccountId(bowerbird_lifecycle::IdSource.next())
    }

    #[tokio::test]
    async fn a_full_pool_answers_at_once_and_serves_again_when_there_is_room() {
        let (pool, _root) = pool(Limits { workers: 1, queue: 1, per_account: 9 }).await;
        let gate = Arc::new(Semaphore::new(0));
        let waits = |pool: Pool| {
            let gate = Arc::clone(&gate);
            async move {
                let work = async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(())
                };
                pool.run(OPERATION, Some(somebody()), soon(), work).await
            }
        };
        let (first, second) = (waits(pool.clone()), waits(pool.clone()));
        let full = async {
            while pool.0.taken_in.load(Ordering::Acquire) < 2 {
                tokio::task::yield_now().await;
            }
            let problem = pool.run(OPERATION, Some(somebody()), soon(), async { Ok(()) }).await.unwrap_err();
            assert_eq!((problem.code, problem.retry_after), (Code::Unavailable, Some(1)));
            gate.add_permits(2);
        };
        let (first, second, ()) = tokio::join!(first, second, full);
        assert!(first.is_ok() && second.is_ok());
        assert!(pool.run(OPERATION, Some(somebody()), soon(), async { Ok(()) }).await.is_ok());
        assert_eq!(pool.0.taken_in.load(Ordering::Acquire), 0);
        assert!(pool.0.by_account.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_account_cannot_take_the_whole_pool() {
        let (pool, _root) = pool(Limits { workers: 4, queue: 4, per_account: 1 }).await;
        let greedy = Some(somebody());
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let first = pool.run(OPERATION, greedy, soon(), async move {
            held.acquire().await.unwrap().forget();
            Ok(())
        });
        let others = async {
            while pool.0.taken_in.load(Ordering::Acquire) < 1 {
                tokio::task::yield_now().await;
            }
            let problem = pool.run(OPERATION, greedy, soon(), async { Ok(()) }).await.unwrap_err();
            assert_eq!(problem.code, Code::TooMany);
            assert!(pool.run(OPERATION, Some(somebody()), soon(), async { Ok(()) }).await.is_ok());
            gate.add_permits(1);
        };
        assert!(tokio::join!(first, others).0.is_ok());
    }

    #[tokio::test]
    async fn the_deadline_ends_the_wait_and_the_work() {
        let (pool, _root) = pool(Limits { workers: 1, queue: 4, per_account: 4 }).await;
        let deadline = Instant::now() + Duration::from_millis(100);
        let never = pool.run(OPERATION, None, deadline, std::future::pending::<Result<(), Problem>>());
        let waiting = pool.run(OPERATION, None, deadline - Duration::from_millis(50), async { Ok(()) });
        let (never, waiting) = tokio::join!(never, waiting);
        assert_eq!(never.unwrap_err().code, Code::Timeout);
        assert_eq!(waiting.unwrap_err().code, Code::Unavailable);
        assert!(pool.run(OPERATION, None, soon(), async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_that_panics_is_answered_and_costs_no_worker() {
        let (pool, root) = pool(Limits { workers: 1, queue: 4, per_account: 4 }).await;
        for _ in 0..20 {
            let problem =
                pool.run(OPERATION, None, soon(), async { if true { panic!("a bug") } else { Ok(()) } }).await.unwrap_err();
            assert_eq!(problem.code, Code::Internal);
        }
        assert!(root.tree().snapshot().iter().all(|node| node.restarts == 0));
    }

    #[tokio::test]
    async fn a_request_whose_worker_is_killed_is_answered_and_the_next_is_served() {
        let (pool, root) = pool(Limits { workers: 1, queue: 4, per_account: 4 }).await;
        let worker = loop {
            let idle = pool.0.idle.lock().unwrap().front().cloned();
            match idle {
                Some(worker) => break worker,
                None => tokio::task::yield_now().await,
            }
        };
        let (started, running) = oneshot::channel();
        let killed = pool.run(OPERATION, None, soon(), async move {
            let _ = started.send(());
            std::future::pending::<Result<(), Problem>>().await
        });
        let kill = async {
            running.await.unwrap();
            worker.kill();
        };
        assert_eq!(tokio::join!(killed, kill).0.unwrap_err().code, Code::Internal);
        assert!(pool.run(OPERATION, None, soon(), async { Ok(()) }).await.is_ok());
        assert!(root.tree().snapshot().iter().any(|node| node.restarts == 1));
    }
}
