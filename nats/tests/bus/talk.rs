//! Asking and answering over a real server.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    PATIENCE, connect, context,
    token::{SigningKey, claims},
    verifier,
};
use async_nats::{HeaderMap, service};
use aws_lc_rs::rsa::KeySize;
use bowerbird_nats::{
    AskContext, Bus, Call, Code, Limit, Problem, Verifier,
    account::{Account, GetAccount, GetUsage, Role, Usage},
    answer::RunningService,
    ask, envelope,
    operation::Done,
    session::{Logout, Verify},
};
use bowerbird_testkit::{NatsServer, eventually};
use futures_util::StreamExt;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const ENOUGH: Limit = Limit { concurrency: 16, queue: 64 };

/// A service that answers `session.logout` this way.
async fn answering<F, Fut>(bus: &Bus, limit: Limit, handler: F) -> RunningService
where
    F: Fn(Call<Logout>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Done, Problem>> + Send + 'static,
{
    bus.service("a test", "1.0.0", verifier()).endpoint(limit, handler).start(CancellationToken::new()).await.unwrap()
}

fn logout() -> Logout {
    Logout { refresh_token: "abc".into() }
}

fn usage() -> Usage {
    Usage { stored_bytes: 1, reserved_bytes: 2, quota_bytes: 3, files: 4, unfinished_downloads: 5 }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ask::Error>) -> Problem {
    match result.unwrap_err() {
        ask::Error::Refused(problem) => problem,
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test]
async fn an_operation_is_answered_and_its_request_is_told_as_it_was_asked() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let running = answering(&bus, ENOUGH, |call| async move {
        assert_eq!(call.request, logout());
        assert_eq!(call.request_id, "request-1");
        assert_eq!(call.idempotency_key.as_deref(), Some("a key with spaces, 100 % ä"));
        assert_eq!(call.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(call.caller.is_none());
        let left = call.deadline - Instant::now();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
        Ok(Done {})
    })
    .await;
    let context = AskContext {
        idempotency_key: Some("a key with spaces, 100 % ä".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..context(Duration::from_secs(5))
    };
    assert_eq!(bus.ask(&logout(), &context).await.unwrap(), Done {});
    assert!(running.stop(Duration::from_secs(5)).await);
    assert!(bus.close(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_credential_is_verified_before_the_handler_sees_anything() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let (key, verifier) = (SigningKey::generate("key-1", KeySize::Rsa2048), verifier());
    verifier.set_keys(&key.set());
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let running = bus
        .service("a test", "1.0.0", verifier)
        .endpoint(ENOUGH, move |call: Call<GetUsage>| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                assert_eq!(call.account().unwrap().role, Role::User);
                Ok(usage())
            }
        })
        .start(CancellationToken::new())
        .await
        .unwrap();
    let ask = async |credential: Option<String>| {
        bus.ask(&GetUsage {}, &AskContext { credential, ..context(Duration::from_secs(5)) }).await
    };
    let expired = key.token(&key.header(), &{
        let mut claims = claims();
        claims["iat"] = json!(1);
        claims["exp"] = json!(2);
        claims
    });
    for (credential, code) in [
        (None, Code::Unauthorized),
        (Some("nonsense".to_owned()), Code::Unauthorized),
        (Some(SigningKey::generate("key-1", KeySize::Rsa2048).good()), Code::Unauthorized),
        (Some(expired), Code::TokenExpired),
    ] {
        let problem = refusal(ask(credential).await);
        assert_eq!((problem.code, problem.request_id.as_deref()), (code, Some("request-1")));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(ask(Some(key.good())).await.unwrap(), usage());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_problem_comes_back_as_a_document_with_the_headers_of_a_service_error() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let running = answering(&bus, ENOUGH, |_| async { Err(Problem::unavailable("busy \u{1F426}", 7)) }).await;
    let problem = refusal(bus.ask(&logout(), &context(Duration::from_secs(5))).await);
    assert_eq!((problem.code, problem.retry_after, problem.detail.as_str()), (Code::Unavailable, Some(7), "busy \u{1F426}"));

    // As a client in another language sees it.
    let stranger = async_nats::connect(server.url()).await.unwrap();
    let reply = stranger.request("bowerbird.v1.req.session.logout", r#"{"refresh_token":"x"}"#.into()).await.unwrap();
    let headers = reply.headers.unwrap();
    let header = |name: &str| headers.get(name).unwrap().as_str().to_owned();
    assert_eq!(header("Nats-Service-Error"), "Not available right now");
    assert_eq!(header("Nats-Service-Error-Code"), "503");
    assert_eq!(header("Content-Type"), "application/problem+json");
    let document: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!((&document["code"], &document["status"]), (&json!("unavailable"), &json!(503)));
    assert_eq!(document["request_id"].as_str().unwrap(), header(envelope::REQUEST_ID), "one is given to who brings none");
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_body_of_another_shape_is_refused_without_running_anything() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let running = answering(&bus, ENOUGH, |_| async { panic!("it ran") }).await;
    let stranger = async_nats::connect(server.url()).await.unwrap();
    for body in [
        "",
        "nonsense",
        "[]",
        "{}",
        r#"{"refresh_token":1}"#,
        r#"{"refresh_token":"a","refresh_token":"b"}"#,
        r#"{"refresh_token":"a","more":1}"#,
        r#"["a"]"#,
    ] {
        let reply = stranger.request("bowerbird.v1.req.session.logout", body.into()).await.unwrap();
        let problem: Problem = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(problem.code, Code::InvalidBody, "{body}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(envelope::IDEMPOTENCY_KEY, "k".repeat(256));
    let reply = stranger
        .request_with_headers("bowerbird.v1.req.session.logout", headers, r#"{"refresh_token":"a"}"#.into())
        .await
        .unwrap();
    assert_eq!(serde_json::from_slice::<Problem>(&reply.payload).unwrap().code, Code::InvalidValue);
    running.stop(Duration::from_secs(5)).await;
}

/// Counts a handler for as long as it is there.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn count(running: &Arc<AtomicUsize>) -> Running {
        running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_there_is_no_room_for_is_answered_unavailable_at_once() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let (gate, running_now) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&gate), Arc::clone(&running_now));
    let running = answering(&bus, Limit { concurrency: 2, queue: 3 }, move |_| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            let _running = Running::count(&count);
            wait.acquire().await.unwrap().forget();
            Ok(Done {})
        }
    })
    .await;
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let bus = bus.clone();
        // The probe below may be in the place of one of them for a while.
        waiting.spawn(async move {
            loop {
                match bus.ask(&logout(), &context(Duration::from_secs(20))).await {
                    Err(ask::Error::Refused(problem)) if problem.code == Code::Unavailable => {
                        tokio::task::yield_now().await;
                    }
                    answer => return answer.unwrap(),
                }
            }
        });
    }
    // Five are in: two run, three wait. The sixth is told at once.
    let problem = eventually(PATIENCE, "there is no room", async || {
        let asked = Instant::now();
        match bus.ask(&logout(), &context(Duration::from_millis(200))).await {
            Err(ask::Error::Refused(problem)) if problem.code == Code::Unavailable => {
                assert!(asked.elapsed() < Duration::from_millis(150), "it took {:?}", asked.elapsed());
                Some(problem)
            }
            _ => None,
        }
    })
    .await;
    assert_eq!(problem.retry_after, Some(1));
    assert_eq!(running_now.load(Ordering::SeqCst), 2);
    gate.add_permits(100);
    while let Some(result) = waiting.join_next().await {
        assert_eq!(result.unwrap(), Done {});
    }
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_run() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (wait, note) = (Arc::clone(&gate), Arc::clone(&started));
    let running = answering(&bus, Limit { concurrency: 1, queue: 10 }, move |call| {
        let (wait, note) = (Arc::clone(&wait), Arc::clone(&note));
        async move {
            note.lock().unwrap().push(call.request.refresh_token);
            wait.acquire().await.unwrap().forget();
            Ok(Done {})
        }
    })
    .await;
    let ask = |token: &str, timeout| {
        let (bus, request) = (bus.clone(), Logout { refresh_token: token.to_owned() });
        async move { bus.ask(&request, &context(timeout)).await }
    };
    let mut first = JoinSet::new();
    first.spawn(ask("first", Duration::from_secs(20)));
    eventually(PATIENCE, "the first runs", async || (started.lock().unwrap().len() == 1).then_some(())).await;
    let late = ask("late", Duration::from_millis(100)).await;
    assert!(matches!(late, Err(ask::Error::Timeout { .. } | ask::Error::Refused(_))), "{late:?}");
    assert_eq!(Problem::from(late.unwrap_err()).code, Code::Timeout);
    gate.add_permits(100);
    assert!(first.join_next().await.unwrap().unwrap().is_ok());
    assert!(ask("last", Duration::from_secs(20)).await.is_ok());
    assert_eq!(*started.lock().unwrap(), ["first", "last"]);
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_handler_that_panics_is_our_fault_and_the_next_request_is_answered() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let running = answering(&bus, Limit { concurrency: 1, queue: 0 }, |call| async move {
        assert_ne!(call.request.refresh_token, "panic", "as asked for");
        Ok(Done {})
    })
    .await;
    for _ in 0..3 {
        let request = Logout { refresh_token: "panic".into() };
        assert_eq!(refusal(bus.ask(&request, &context(Duration::from_secs(5))).await).code, Code::Internal);
    }
    eventually(PATIENCE, "the place of the last is free again", async || {
        bus.ask(&logout(), &context(Duration::from_secs(5))).await.ok()
    })
    .await;
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_reply_that_the_bus_cannot_carry_is_our_fault() {
    let server = NatsServer::start_with("max_payload: 64KB").await;
    let bus = connect(&server).await;
    let running = bus
        .service("a test", "1.0.0", verifier())
        .endpoint(ENOUGH, |_: Call<Verify>| async { Err(Problem::new(Code::NotFound, "x".repeat(100_000))) })
        .start(CancellationToken::new())
        .await
        .unwrap();
    let request = Verify { access_token: "a".into() };
    let answer = bus.ask(&request, &context(Duration::from_secs(5))).await;
    assert_eq!(Problem::from(answer.unwrap_err()).code, Code::Internal);
    let request = Verify { access_token: "a".repeat(100_000) };
    let answer = bus.ask(&request, &context(Duration::from_secs(5))).await;
    assert_eq!(Problem::from(answer.unwrap_err()).code, Code::BodyTooLarge);
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_nobody_answers_is_told_at_once() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let asked = Instant::now();
    let answer = bus.ask(&logout(), &context(Duration::from_secs(20))).await;
    assert!(matches!(answer, Err(ask::Error::NoResponders { .. })));
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert_eq!(Problem::from(answer.unwrap_err()).code, Code::Unavailable);
}

#[tokio::test]
async fn what_only_reads_is_asked_again_when_a_process_hangs_and_nothing_else_is() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    // A process that hangs: its subscriptions are there, and nothing comes back.
    let hanging = async_nats::connect(server.url()).await.unwrap();
    let mut reads = hanging.subscribe("bowerbird.v1.req.session.verify").await.unwrap();
    let mut changes = hanging.subscribe("bowerbird.v1.req.session.logout").await.unwrap();
    // A flush says that they were sent. What comes back on the same connection says that the server knows of them.
    let mut echo = hanging.subscribe("echo").await.unwrap();
    hanging.publish("echo", "".into()).await.unwrap();
    assert!(echo.next().await.is_some());
    let within = context(Duration::from_secs(2));
    let asking = bus.clone();
    // So long that a machine which stands still for a moment does not eat the second try.
    let within_that = context(Duration::from_secs(12));
    let verified =
        JoinSet::from_iter([async move { asking.ask(&Verify { access_token: "a token".into() }, &within_that).await }]);
    let first = reads.next().await.unwrap();
    let second = reads.next().await.unwrap();
    assert_eq!(first.payload, second.payload);
    assert_ne!(first.reply, second.reply, "each try has an inbox of its own");
    let answer = json!({"account_id": uuid::Uuid::nil(), "session_id": uuid::Uuid::nil(), "role": "user", "expires_at": "2030-01-01T00:00:00Z"});
    hanging.publish(second.reply.unwrap(), answer.to_string().into()).await.unwrap();
    let verified = verified.join_all().await.remove(0).unwrap();
    assert_eq!(verified.role, Role::User);

    let lost = bus.ask(&logout(), &within).await.unwrap_err();
    assert!(matches!(lost, ask::Error::Timeout { .. }), "{lost}");
    assert!(changes.next().await.is_some());
    changes.unsubscribe().await.unwrap();
    assert!(changes.next().await.is_none(), "it was asked once");
}

#[tokio::test]
async fn two_requests_of_the_same_content_have_one_fingerprint_and_others_do_not() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = Arc::clone(&seen);
    let running = bus
        .service("a test", "1.0.0", verifier())
        .endpoint(ENOUGH, move |call: Call<bowerbird_nats::session::Login>| {
            note.lock().unwrap().push(call.fingerprint);
            async { Err(Problem::internal()) }
        })
        .start(CancellationToken::new())
        .await
        .unwrap();
    let stranger = async_nats::connect(server.url()).await.unwrap();
    for body in
        [r#"{"login":"anna","password":"p"}"#, r#"{ "password": "p", "login": "anna" }"#, r#"{"login":"anna","password":"q"}"#]
    {
        stranger.request("bowerbird.v1.req.session.login", body.into()).await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
    assert!(seen[0].len() == 64 && !seen[0].contains('p'));
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_service_is_discovered_and_tells_how_it_does() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let running = bus
        .service("who does what", "1.2.3", verifier())
        .endpoint(ENOUGH, |call: Call<Logout>| async move {
            if call.request.refresh_token == "bad" { Err(Problem::not_found("session")) } else { Ok(Done {}) }
        })
        .endpoint(ENOUGH, |_: Call<GetAccount>| async { Err::<Account, _>(Problem::internal()) })
        .start(CancellationToken::new())
        .await
        .unwrap();
    for token in ["a", "b", "bad"] {
        let request = Logout { refresh_token: token.into() };
        let _ = bus.ask(&request, &context(Duration::from_secs(5))).await;
    }
    let stranger = async_nats::connect(server.url()).await.unwrap();
    let ping = stranger.request("$SRV.PING", "".into()).await.unwrap();
    let ping: service::PingResponse = serde_json::from_slice(&ping.payload).unwrap();
    assert_eq!((ping.kind.as_str(), ping.name.as_str()), ("io.nats.micro.v1.ping_response", "bowerbird"));
    let info = stranger.request("$SRV.INFO.bowerbird", "".into()).await.unwrap();
    let info: service::Info = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!((info.version.as_str(), info.description.as_str()), ("1.2.3", "who does what"));
    let names: Vec<&str> = info.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["session-logout", "account-get"]);
    assert_eq!(info.endpoints[1].subject, "bowerbird.v1.req.account.get");
    assert_eq!(info.endpoints[1].metadata["access"], "account");
    let stats = stranger.request(format!("$SRV.STATS.bowerbird.{}", info.id), "".into()).await.unwrap();
    let stats: service::Stats = serde_json::from_slice(&stats.payload).unwrap();
    let of: HashMap<_, _> = stats.endpoints.into_iter().map(|endpoint| (endpoint.name.clone(), endpoint)).collect();
    let logout = &of["session-logout"];
    assert_eq!((logout.requests, logout.errors), (3, 1));
    assert!(logout.processing_time > Duration::ZERO && logout.average_processing_time > Duration::ZERO);
    assert_eq!(logout.last_error.as_ref().unwrap().status, "not_found");
    running.stop(Duration::from_secs(5)).await;
    let gone = stranger.request("$SRV.PING.bowerbird", "".into()).await;
    assert_eq!(gone.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
}

#[tokio::test]
async fn a_stopping_service_takes_nothing_new_and_answers_what_it_has() {
    let server = NatsServer::start().await;
    let (bus, asker) = (connect(&server).await, connect(&server).await);
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&gate), Arc::clone(&started));
    let running = answering(&bus, ENOUGH, move |_| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            wait.acquire().await.unwrap().forget();
            Ok(Done {})
        }
    })
    .await;
    let mut asking = JoinSet::new();
    for _ in 0..10 {
        let asker = asker.clone();
        asking.spawn(async move { asker.ask(&logout(), &context(Duration::from_secs(20))).await });
    }
    eventually(PATIENCE, "all run", async || (started.load(Ordering::SeqCst) == 10).then_some(())).await;
    let mut stopping = JoinSet::new();
    stopping.spawn(async move {
        assert!(running.stop(Duration::from_secs(10)).await, "all were answered in time");
        assert!(bus.close(Duration::from_secs(5)).await, "and all answers left");
    });
    eventually(PATIENCE, "nothing new is taken", async || {
        matches!(asker.ask(&logout(), &context(Duration::from_millis(300))).await, Err(ask::Error::NoResponders { .. }))
            .then_some(())
    })
    .await;
    gate.add_permits(100);
    while let Some(result) = asking.join_next().await {
        assert_eq!(result.unwrap().unwrap(), Done {}, "the answer arrived although the process ended");
    }
    stopping.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn services_that_come_and_go_under_load_leave_no_request_unanswered() {
    let server = NatsServer::start().await;
    let asker = connect(&server).await;
    let standing_bus = connect(&server).await;
    let standing = answering(&standing_bus, ENOUGH, |_| async { Ok(Done {}) }).await;
    let (over, answered, lost) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (asker, over, answered, lost) = (asker.clone(), over.clone(), Arc::clone(&answered), Arc::clone(&lost));
        asking.spawn(async move {
            while !over.is_cancelled() {
                match asker.ask(&logout(), &context(Duration::from_secs(2))).await {
                    Ok(Done {}) => _ = answered.fetch_add(1, Ordering::SeqCst),
                    Err(error) => lost.lock().unwrap().push(error.to_string()),
                }
            }
        });
    }
    for _ in 0..40 {
        let bus = connect(&server).await;
        let running = answering(&bus, ENOUGH, |_| async { Ok(Done {}) }).await;
        let before = answered.load(Ordering::SeqCst);
        eventually(PATIENCE, "some are answered", async || (answered.load(Ordering::SeqCst) > before + 50).then_some(())).await;
        assert!(running.stop(Duration::from_secs(5)).await);
        assert!(bus.close(Duration::from_secs(5)).await);
    }
    over.cancel();
    while asking.join_next().await.is_some() {}
    let lost = lost.lock().unwrap().clone();
    println!("{} answered, {} lost over 40 stops", answered.load(Ordering::SeqCst), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    standing.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn asking_and_answering_go_on_after_the_server_was_killed() {
    let mut server = NatsServer::start().await;
    let (bus, asker) = (connect(&server).await, connect(&server).await);
    let running = answering(&bus, ENOUGH, |_| async { Ok(Done {}) }).await;
    for _ in 0..3 {
        assert!(asker.ask(&logout(), &context(Duration::from_secs(5))).await.is_ok());
        server.kill9();
        eventually(PATIENCE, "the loss is noticed", async || (!asker.is_connected()).then_some(())).await;
        let asked = Instant::now();
        let answer = asker.ask(&logout(), &context(Duration::from_secs(20))).await;
        assert!(matches!(answer, Err(ask::Error::Disconnected)), "{answer:?}");
        assert!(asked.elapsed() < Duration::from_secs(4), "nobody waits for a server that is away");
        assert_eq!(Problem::from(answer.unwrap_err()).code, Code::Unavailable);
        server.restart().await;
        eventually(PATIENCE, "requests are answered again", async || {
            asker.ask(&logout(), &context(Duration::from_secs(2))).await.ok()
        })
        .await;
    }
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_error_reply_of_somebody_elses_code_is_a_problem_too() {
    use async_nats::service::ServiceExt;
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let stranger = async_nats::connect(server.url()).await.unwrap();
    let service = stranger.service_builder().start("other", "1.0.0").await.unwrap();
    let mut endpoint = service.endpoint("bowerbird.v1.req.session.logout").await.unwrap();
    stranger.request("$SRV.PING.other", "".into()).await.unwrap();
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        for code in [503, 500] {
            let error = service::error::Error { status: "no".into(), code };
            endpoint.next().await.unwrap().respond(Err(error)).await.unwrap();
        }
        endpoint.next().await.unwrap().respond(Ok("nonsense".into())).await.unwrap();
    });
    let ask = async || bus.ask(&logout(), &context(Duration::from_secs(5))).await;
    assert_eq!(refusal(ask().await).code, Code::Unavailable);
    assert_eq!(refusal(ask().await).code, Code::Internal);
    assert!(matches!(ask().await, Err(ask::Error::BadReply { .. })));
}

#[tokio::test]
async fn a_service_that_may_not_subscribe_says_so() {
    let users = r#"authorization { users: [ { user: limited, password: secret, permissions: { publish: ">", subscribe: ["_INBOX_bowerbird.>"] } } ] }"#;
    let server = NatsServer::start_with(users).await;
    let options =
        bowerbird_nats::bus::Options { user: Some(("limited".into(), "secret".into())), ..crate::support::options(&server) };
    let bus = Bus::connect(options, Duration::from_secs(10)).await.unwrap();
    let started = bus
        .service("a test", "1.0.0", Verifier::new(String::new(), String::new(), Arc::new(|| time::OffsetDateTime::UNIX_EPOCH)))
        .endpoint(ENOUGH, |_: Call<Logout>| async { Ok(Done {}) })
        .start(CancellationToken::new())
        .await;
    assert!(started.unwrap_err().to_string().contains("may subscribe to requests"));
}

#[tokio::test]
async fn a_request_that_is_to_be_answered_to_no_inbox_is_not_carried_out() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let _running = answering(&bus, ENOUGH, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Done {}) }
    })
    .await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut elsewhere = client.subscribe("elsewhere.>").await.unwrap();
    let mut inbox = client.subscribe("_INBOX_of.somebody").await.unwrap();
    for subject in ["bowerbird.v1.req.session.logout", "$SRV.PING"] {
        client.publish_with_reply(subject, "elsewhere.here", r#"{"refresh_token":"abc"}"#.into()).await.unwrap();
    }
    let asked = || {
        client.publish_with_reply("bowerbird.v1.req.session.logout", "_INBOX_of.somebody", r#"{"refresh_token":"abc"}"#.into())
    };
    asked().await.unwrap();
    tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), elsewhere.next()).await.is_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
