//! Answering: operations as endpoints of a NATS service. A request is verified, admitted, parsed and run within its
//! deadline; what there is no room for is refused at once, so that nobody waits in vain.

use std::{future::Future, marker::PhantomData, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, Message, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    account::Role,
    bus::{Bus, Connection},
    credential::{Caller, Verifier, sha256_hex},
    discovery::{self, Listening, QUEUE_GROUP},
    envelope::{self, RequestHead},
    json,
    operation::{Access, Operation},
    problem::{self, Code, Problem},
    subject::{self, Verb},
};

/// Patience of a caller who does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
/// Patience that is believed at most.
const TIMEOUT_MAX: Duration = Duration::from_mins(5);
/// Longest idempotency key and request id.
const KEY_MAX_BYTES: usize = 255;
/// How long a stopping endpoint waits for the server to hand over what it had routed here already.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// How much of an operation runs at once in this process, and how much may wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Requests that run at once.
    pub concurrency: usize,
    /// Requests that wait; one more is answered `unavailable`.
    pub queue: usize,
}

/// A request that is to be carried out.
#[derive(Debug)]
pub struct Call<O> {
    /// What is asked.
    pub request: O,
    /// Who asks. Always there unless the operation is public.
    pub caller: Option<Caller>,
    /// Repeats with the same key have the effect of one.
    pub idempotency_key: Option<String>,
    /// Names the request in every log.
    pub request_id: String,
    /// When nobody waits for the answer any more; the handler is dropped then.
    pub deadline: Instant,
    /// Trace (W3C Trace Context).
    pub traceparent: Option<String>,
    /// SHA-256, in hexadecimal, of operation and request: two requests with one idempotency key must agree in it.
    pub fingerprint: String,
}

impl<O> Call<O> {
    /// Who asks, or `unauthorized`.
    pub fn account(&self) -> Result<Caller, Problem> {
        self.caller.ok_or_else(|| Problem::new(Code::Unauthorized, "this needs an access token"))
    }
}

/// Why a service could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client did not take a subscription.
    #[error("a subscription was not taken")]
    Subscribe(#[from] SubscribeError),
    /// The server did not confirm the subscriptions: mostly a missing permission.
    #[error("the NATS server did not confirm the subscriptions: check that this user may subscribe to requests and $SRV.>")]
    NotConfirmed,
}

/// A service in the making.
pub struct ServiceBuilder {
    bus: Bus,
    description: String,
    version: String,
    verifier: Verifier,
    endpoints: Vec<(Limit, Arc<dyn Endpoint>)>,
}

impl std::fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceBuilder").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Bus {
    /// Begins a service that answers operations. `version` is a semantic version.
    pub fn service(&self, description: &str, version: &str, verifier: Verifier) -> ServiceBuilder {
        ServiceBuilder {
            bus: self.clone(),
            description: description.to_owned(),
            version: version.to_owned(),
            verifier,
            endpoints: Vec::new(),
        }
    }
}

impl ServiceBuilder {
    /// Adds an operation. Its handler is dropped at the deadline of a request and may be dropped at every await.
    #[must_use]
    pub fn endpoint<O, F, Fut>(mut self, limit: Limit, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Call<O>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<O::Reply, Problem>> + Send + 'static,
    {
        let subject = self.bus.subjects().request(O::AREA, O::NAME);
        let told = discovery::Endpoint::new(O::AREA, O::NAME, subject.as_str().to_owned(), O::ACCESS, O::SUMMARY);
        let typed = Typed { handler, told: Arc::new(told), operation: PhantomData::<fn() -> O> };
        self.endpoints.push((limit, Arc::new(typed)));
        self
    }

    /// Subscribes, and returns when the server has confirmed it, so that the next request is answered. Ends orderly
    /// when `shutdown` is cancelled: no new requests are taken, those that are here are answered.
    pub async fn start(self, shutdown: CancellationToken) -> Result<RunningService, Error> {
        let client = self.bus.0.client.clone();
        let stopping = shutdown.child_token();
        let service = Arc::new(discovery::Service {
            name: self.bus.subjects().prefix().to_owned(),
            id: format!("{:032x}", rand::random::<u128>()),
            version: self.version,
            description: self.description,
            started: self.verifier.now().format(&Rfc3339).unwrap_or_else(|_| OffsetDateTime::UNIX_EPOCH.to_string()),
            endpoints: self.endpoints.iter().map(|(_, endpoint)| Arc::clone(endpoint.told())).collect(),
        });
        let mut tasks = JoinSet::new();
        for (limit, endpoint) in self.endpoints {
            let subject = endpoint.told().subject.clone();
            let connection = self.bus.connection();
            let requests = client.queue_subscribe(subject, QUEUE_GROUP.to_owned()).await?;
            let desk = Desk {
                client: client.clone(),
                verifier: self.verifier.clone(),
                running: Arc::new(Semaphore::new(limit.concurrency.max(1))),
            };
            tasks.spawn(serve(endpoint, desk, limit, (requests, connection), stopping.clone()));
        }
        let listening = Listening::start(&client, &service).await?;
        tasks.spawn(listening.answer(client.clone(), Arc::clone(&service), stopping.clone()));
        // The server works off one connection in order: the answer to this says that it has seen all subscriptions.
        let [_, _, own] = subject::discovery(Verb::Ping, &service.name, &service.id);
        match client.request(own.nats(), Bytes::new()).await {
            Ok(_) => {
                info!(service = service.name, endpoints = service.endpoints.len(), "requests are answered");
                Ok(RunningService { tasks, stopping })
            }
            Err(_) => Err(Error::NotConfirmed),
        }
    }
}

/// A service that answers. Dropping it ends it without manners.
#[derive(Debug)]
pub struct RunningService {
    tasks: JoinSet<()>,
    stopping: CancellationToken,
}

impl RunningService {
    /// Takes no new requests and waits until those that are here are answered, at most this long. True if they are.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.stopping.cancel();
        timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await.is_ok()
    }

    /// Resolves when the service has ended after its shutdown.
    pub async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What an endpoint works with.
#[derive(Clone)]
struct Desk {
    client: Client,
    verifier: Verifier,
    running: Arc<Semaphore>,
}

trait Endpoint: Send + Sync {
    fn told(&self) -> &Arc<discovery::Endpoint>;
    fn access(&self) -> Access;
    /// Parses and runs an admitted request. The body of the reply, or the problem.
    fn run(&self, body: &[u8], admitted: Admitted) -> BoxFuture<'static, Result<Bytes, Problem>>;
}

/// A request that got through the door.
struct Admitted {
    caller: Option<Caller>,
    head: RequestHead,
    request_id: String,
    deadline: Instant,
}

struct Typed<O, F> {
    handler: F,
    told: Arc<discovery::Endpoint>,
    operation: PhantomData<fn() -> O>,
}

impl<O, F, Fut> Endpoint for Typed<O, F>
where
    O: Operation,
    F: Fn(Call<O>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O::Reply, Problem>> + Send + 'static,
{
    fn told(&self) -> &Arc<discovery::Endpoint> {
        &self.told
    }

    fn access(&self) -> Access {
        O::ACCESS
    }

    fn run(&self, body: &[u8], admitted: Admitted) -> BoxFuture<'static, Result<Bytes, Problem>> {
        let (request, fingerprint) = match parse::<O>(body) {
            Ok(parsed) => parsed,
            Err(problem) => return std::future::ready(Err(problem)).boxed(),
        };
        let request_id = admitted.request_id.clone();
        let call = Call {
            request,
            caller: admitted.caller,
            idempotency_key: admitted.head.idempotency_key,
            request_id: admitted.request_id,
            deadline: admitted.deadline,
            traceparent: admitted.head.traceparent,
            fingerprint,
        };
        let answer = (self.handler)(call);
        async move {
            let reply = answer.await?;
            serde_json::to_vec(&reply).map(Bytes::from).map_err(|error| {
                error!(request_id, %error, "a reply has no JSON");
                Problem::internal()
            })
        }
        .boxed()
    }
}

/// The request and its fingerprint. The fingerprint is of the request as it was understood, so that the order of its
/// fields and the space between them do not matter.
fn parse<O: Operation>(body: &[u8]) -> Result<(O, String), Problem> {
    let request: O = json::parse(body)?;
    let understood = serde_json::to_vec(&request).map_err(|_| Problem::internal())?;
    let fingerprint = sha256_hex(&[O::AREA.as_bytes(), b".", O::NAME.as_bytes(), b"\n", &understood]);
    Ok((request, fingerprint))
}

/// How a stopping endpoint lets go of its subscription.
///
/// The client forgets a subscription before the server has heard that it should, and what the server routes here in
/// between is lost. So the server is first told to end it after a few more requests, which the client waits for; only
/// where so few come that nothing can be in between is the subscription ended outright.
#[derive(Clone, Copy)]
enum Leaving {
    After(u64),
    Outright,
}

impl Leaving {
    /// Each step, and how long it may take.
    const STEPS: [(Leaving, Duration); 3] = [
        (Leaving::After(32), Duration::from_millis(150)),
        (Leaving::After(1), Duration::from_millis(100)),
        (Leaving::Outright, DRAIN_PATIENCE),
    ];

    async fn begin(self, requests: &mut Subscriber, received: u64) -> bool {
        match self {
            Leaving::After(more) => requests.unsubscribe_after(received + more).await.is_ok(),
            Leaving::Outright => requests.drain().await.is_ok(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a bound on stopping")]
async fn serve(
    endpoint: Arc<dyn Endpoint>,
    desk: Desk,
    limit: Limit,
    (mut requests, connection): (Subscriber, watch::Receiver<Connection>),
    stopping: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let mut received = 0_u64;
    let mut steps = Leaving::STEPS.into_iter();
    let mut leaving: Option<Instant> = None;
    loop {
        let step_over = async {
            match leaving {
                None => stopping.cancelled().await,
                Some(end) => sleep_until(end).await,
            }
        };
        tokio::select! {
            biased;
            () = step_over => {
                // A new connection counts anew, so that only the outright way is left.
                let counts_hold = matches!(connection.has_changed(), Ok(false));
                let Some((step, patience)) = steps.by_ref().find(|(step, _)| counts_hold || matches!(step, Leaving::Outright))
                else { break };
                if !step.begin(&mut requests, received).await {
                    break;
                }
                leaving = Some(Instant::now() + patience);
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            message = requests.next() => {
                let Some(message) = message else { break };
                received += 1;
                if !answerable(&message) {
                    continue;
                }
                let arrived = Instant::now();
                if tasks.len() >= limit.concurrency.max(1).saturating_add(limit.queue) {
                    let problem = Problem::unavailable("there are too many requests of this kind right now; try again soon", 1);
                    reply(&*endpoint, &desk.client, &message, arrived, None, Err(problem)).await;
                } else {
                    tasks.spawn(attend(Arc::clone(&endpoint), desk.clone(), message, arrived));
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Whether there is an inbox to answer to. What is published and not asked is not carried out, for nobody would learn how
/// it went, and neither is what is to be answered to anything but an inbox.
fn answerable(message: &Message) -> bool {
    match &message.reply {
        Some(reply) if subject::is_inbox(reply) => true,
        Some(reply) => {
            warn!(subject = %message.subject, %reply, "a request whose reply subject is no inbox is not carried out");
            false
        }
        None => {
            warn!(subject = %message.subject, "a request without a reply subject is not carried out");
            false
        }
    }
}

/// One request from arrival to reply.
async fn attend(endpoint: Arc<dyn Endpoint>, desk: Desk, message: Message, arrived: Instant) {
    let head = RequestHead::read(message.headers.as_ref());
    let request_id = head
        .request_id
        .clone()
        .filter(|id| !id.is_empty() && id.len() <= KEY_MAX_BYTES)
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let deadline = arrived + head.timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
    let admitted = Admitted { caller: None, head, request_id: request_id.clone(), deadline };
    let work = AssertUnwindSafe(admit_and_run(&*endpoint, &desk, &message.payload, admitted)).catch_unwind();
    let result = match timeout_at(deadline, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => {
            error!(request_id, subject = %message.subject, "a request handler panicked");
            Err(Problem::internal())
        }
        Err(_elapsed) => Err(late()),
    };
    reply(&*endpoint, &desk.client, &message, arrived, Some(&request_id), result).await;
}

async fn admit_and_run(endpoint: &dyn Endpoint, desk: &Desk, body: &[u8], mut admitted: Admitted) -> Result<Bytes, Problem> {
    admitted.caller = authorize(endpoint.access(), &desk.verifier, admitted.head.credential.as_deref())?;
    if admitted.head.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_MAX_BYTES) {
        return Err(Problem::invalid("Idempotency-Key", format!("1 to {KEY_MAX_BYTES} bytes are expected")));
    }
    let _running = desk.running.acquire().await.map_err(|_| Problem::internal())?;
    if Instant::now() >= admitted.deadline {
        return Err(late());
    }
    endpoint.run(body, admitted).await
}

fn late() -> Problem {
    Problem::new(Code::Timeout, "the request was not finished in time")
}

fn authorize(access: Access, verifier: &Verifier, credential: Option<&str>) -> Result<Option<Caller>, Problem> {
    if access == Access::Public {
        return Ok(None);
    }
    let token = credential.ok_or_else(|| Problem::new(Code::Unauthorized, "this needs an access token"))?;
    let caller = verifier.verify(token)?;
    if access == Access::Admin && caller.role != Role::Admin {
        return Err(Problem::new(Code::Forbidden, "this is for administrators"));
    }
    Ok(Some(caller))
}

async fn reply(
    endpoint: &dyn Endpoint,
    client: &Client,
    message: &Message,
    arrived: Instant,
    request_id: Option<&str>,
    result: Result<Bytes, Problem>,
) {
    let Some(reply) = message.reply.clone() else { return };
    let max_bytes = client.max_payload() / 2;
    let mut result = result.map_err(|problem| finish(problem, request_id));
    let mut body = write(&result);
    if body.len() > max_bytes {
        error!(request_id, bytes = body.len(), max_bytes, subject = %message.subject, "a reply is too large for the bus");
        result = Err(finish(Problem::internal(), request_id));
        body = write(&result);
    }
    let mut headers = HeaderMap::new();
    if let Some(request_id) = request_id {
        envelope::put(&mut headers, envelope::REQUEST_ID, &envelope::percent_encode(request_id));
    }
    match &result {
        Ok(_) => envelope::put(&mut headers, envelope::CONTENT_TYPE, "application/json"),
        Err(problem) => {
            envelope::put(&mut headers, envelope::CONTENT_TYPE, problem::CONTENT_TYPE);
            envelope::put(&mut headers, envelope::SERVICE_ERROR, &problem.title);
            envelope::put(&mut headers, envelope::SERVICE_ERROR_CODE, &problem.status.to_string());
        }
    }
    endpoint.told().count(arrived.elapsed(), result.as_ref().err());
    if let Err(error) = client.publish_with_headers(reply, headers, body).await {
        warn!(request_id, %error, "a reply could not be sent");
    }
}

fn finish(problem: Problem, request_id: Option<&str>) -> Problem {
    match request_id {
        Some(request_id) if problem.request_id.is_none() => problem.with_request_id(request_id),
        _ => problem,
    }
}

fn write(result: &Result<Bytes, Problem>) -> Bytes {
    match result {
        Ok(body) => body.clone(),
        Err(problem) => serde_json::to_vec(problem).unwrap_or_default().into(),
    }
}
