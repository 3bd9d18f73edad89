//! Door: REST over the bus. It parses, asks, views, answers, and decides nothing.
//!
//! A request's way: [`http::server`] (connection, deadlines) → [`http::entry`] (request id, Host, headers of every
//! answer) → [`guard`] (token, known parameters) → [`api`] (the operation) → [`actors`] (the question on the bus).

mod actors;
mod api;
mod caller;
mod document;
mod feed;
mod guard;
mod http;
mod metrics;
mod operations;
mod pages;
mod parameter;
mod payload;
mod refused;

use std::{io, net::SocketAddr, sync::Arc};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{Component, Health, IdSource, Metrics, Shutdown, Tasks};
use bowerbird_nats::{
    bus::{Bus, Connection},
    credential::Verifier,
};
use bowerbird_outbound::Client;
use poem::{EndpointExt, IntoEndpoint, Route};
use poem_openapi::{LicenseObject, OpenApi, OpenApiService};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use self::{
    actors::Actors,
    api::{
        account::AccountApi, admin::AdminApi, auth::AuthApi, content::Content, downloads::DownloadsApi, events::EventsApi,
        files::FilesApi, folders::FoldersApi, keys::KeysApi, notifications::NotificationsApi, reminders::RemindersApi,
        shares::SharesApi, statistics::StatisticsApi, trash::TrashApi, uploads::UploadsApi, webhooks::WebhooksApi,
    },
    feed::Feed,
    guard::Guarded,
    http::{
        cors::Cors,
        entry::Entry,
        server::{self, Bounds},
    },
    metrics::Measured,
    pages::Entrance,
    payload::BodyBounds,
};

/// Connections of the operations listener at most.
const MAX_OPERATIONS_CONNECTIONS: usize = 64;

/// What the gateway is given.
pub struct Parts {
    /// The settings of the process.
    pub settings: Arc<Settings>,
    /// Where the actors are asked.
    pub bus: Bus,
    /// Verifies access tokens; somebody keeps its keys in step.
    pub verifier: Verifier,
    /// What `/readyz` reports; the gateway adds itself as `gateway`.
    pub health: Health,
    /// What `/metrics` prints.
    pub metrics: Metrics,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What shutdown waits for; every connection is one.
    pub tasks: Tasks,
    /// Makes request ids.
    pub ids: IdSource,
    /// May dial the bucket's internal endpoint, and nothing else.
    pub object_client: Client,
}

/// The gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener has no address.
    #[error("a listener cannot be used")]
    Listener(#[source] io::Error),
    /// The document cannot be written.
    #[error("the OpenAPI document cannot be written")]
    Document(#[source] serde_json::Error),
    /// The docs page cannot be made.
    #[error(transparent)]
    Pages(#[from] pages::MissingAsset),
}

/// A running gateway. It ends with the [`Shutdown`] it was given, and [`Tasks`] waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Where the REST API is.
    pub api: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub operations: SocketAddr,
}

type Api = (
    AuthApi,
    AccountApi,
    DownloadsApi,
    FilesApi,
    UploadsApi,
    FoldersApi,
    TrashApi,
    SharesApi,
    RemindersApi,
    NotificationsApi,
    EventsApi,
    WebhooksApi,
    StatisticsApi,
    AdminApi,
    KeysApi,
);

/// Serve both listeners. Returns when they accept.
#[expect(clippy::unused_async, reason = "the composition root starts every part alike")]
pub async fn serve(parts: Parts, api: TcpListener, operations: TcpListener) -> Result<Running, Error> {
    let Parts { settings, bus, verifier, health, metrics, shutdown, tasks, ids, object_client } = parts;
    let gateway = &settings.gateway;
    let running = Running {
        api: api.local_addr().map_err(Error::Listener)?,
        operations: operations.local_addr().map_err(Error::Listener)?,
    };
    let measured = Measured::register(&metrics);
    let connection = bus.connection();
    let feed = Feed::new(feed::Parts {
        bus: bus.clone(),
        verifier: verifier.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        heartbeat: gateway.event_heartbeat.get(),
        most: gateway.max_event_streams,
        most_per_account: gateway.max_event_streams_per_account,
        following: measured.event_streams().clone(),
    });
    let actors = Actors::new(bus, gateway.request_timeout.get());
    let content = Content {
        actors: actors.clone(),
        client: object_client,
        streams: Arc::new(Semaphore::new(gateway.max_proxied_streams)),
        running: measured.proxied_streams().clone(),
        stopping: shutdown.token(),
    };
    let for_links = actors.clone();
    let operations_api: Api = (
        AuthApi { actors: actors.clone() },
        AccountApi { actors: actors.clone() },
        DownloadsApi { actors: actors.clone(), content: content.clone() },
        FilesApi { actors: actors.clone(), content: content.clone() },
        UploadsApi { actors: actors.clone() },
        FoldersApi { actors: actors.clone(), content: content.clone() },
        TrashApi { actors: actors.clone() },
        SharesApi { actors: actors.clone() },
        RemindersApi { actors: actors.clone() },
        NotificationsApi { actors: actors.clone() },
        EventsApi { feed },
        WebhooksApi { actors: actors.clone() },
        StatisticsApi { actors: actors.clone() },
        AdminApi { actors },
        KeysApi { verifier: verifier.clone() },
    );
    let routes = pages::links::add(pages::add(Route::new(), openapi_document().map_err(Error::Document)?)?, &for_links);
    let routes =
        pages::shares::add(routes, &content).nest("/", Entrance(service(Guarded::new(operations_api, verifier)).into_endpoint()));
    let patience = gateway.read_timeout.get();
    let body = BodyBounds { limit_bytes: gateway.body_limit.as_usize(), patience };
    let secure = gateway.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
    let public = Arc::new(Entry {
        routes: routes.map_to_response().boxed(),
        ids,
        cors: Cors::new(gateway.cors_origins.clone()),
        body,
        secure,
        measured: measured.clone(),
    });

    let component = health.component("gateway");
    let bounds = Bounds { max_connections: gateway.max_connections, patience };
    tasks.spawn(server::serve(api, public, bounds, shutdown.clone(), tasks.clone()));
    let parts =
        Operations { settings: Arc::clone(&settings), health, metrics, shutdown: shutdown.clone(), tasks: tasks.clone(), ids };
    serve_operations_measured(parts, operations, measured);
    tasks.spawn(async move {
        tokio::select! {
            () = report(&component, connection) => {}
            () = shutdown.stopping() => component.not_ready("stopping"),
        }
    });
    Ok(running)
}

/// What the operations listener is given. Each role has one, also those that serve no API.
pub struct Operations {
    /// The settings of the process.
    pub settings: Arc<Settings>,
    /// What `/readyz` reports.
    pub health: Health,
    /// What `/metrics` prints.
    pub metrics: Metrics,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What shutdown waits for; every connection is one.
    pub tasks: Tasks,
    /// Makes request ids.
    pub ids: IdSource,
}

/// Serve `/livez`, `/readyz` and `/metrics` alone, for a role without an API. Returns when they are served.
pub fn serve_operations(parts: Operations, listener: TcpListener) {
    let measured = Measured::register(&parts.metrics);
    serve_operations_measured(parts, listener, measured);
}

fn serve_operations_measured(parts: Operations, listener: TcpListener, measured: Measured) {
    let Operations { settings, health, metrics, shutdown, tasks, ids } = parts;
    let patience = settings.gateway.read_timeout.get();
    let entry = Arc::new(Entry {
        routes: operations::routes(health, metrics).map_to_response().boxed(),
        ids,
        cors: Cors::new(Vec::new()),
        body: BodyBounds { limit_bytes: settings.gateway.body_limit.as_usize(), patience },
        secure: false,
        measured,
    });
    let bounds = Bounds { max_connections: MAX_OPERATIONS_CONNECTIONS, patience };
    tasks.spawn(server::serve(listener, entry, bounds, shutdown, tasks.clone()));
}

/// Without the bus there is nobody to ask, so there is no use in sending requests here.
async fn report(component: &Component, mut connection: watch::Receiver<Connection>) {
    loop {
        match *connection.borrow_and_update() {
            Connection::Connected => component.ready(),
            Connection::Disconnected { .. } => component.not_ready("the NATS server is not reachable"),
            Connection::Closed => component.not_ready("the connection to the NATS server is closed"),
        }
        if connection.changed().await.is_err() {
            return component.not_ready("the connection to the NATS server is gone");
        }
    }
}

/// The OpenAPI document of the API, as `/openapi.json` serves it.
pub fn openapi_document() -> Result<String, serde_json::Error> {
    document::complete(&service(Described).spec())
}

fn service<A: OpenApi>(api: A) -> OpenApiService<A, ()> {
    OpenApiService::new(api, "Bowerbird", env!("CARGO_PKG_VERSION"))
        .description(
            "Fetches URLs straight into your own object store, and keeps them. Every error is a problem document \
             (RFC 9457) whose `code` is listed at /docs/problems.",
        )
        .license(LicenseObject::new("Apache-2.0").url("https://www.apache.org/licenses/LICENSE-2.0"))
        .server("/")
}

/// The API without anything behind it, to be described.
struct Described;

impl OpenApi for Described {
    fn meta() -> Vec<poem_openapi::registry::MetaApi> {
        Api::meta()
    }

    fn register(registry: &mut poem_openapi::registry::Registry) {
        Api::register(registry);
    }

    fn add_routes(
        self,
        _: &mut std::collections::HashMap<
            String,
            std::collections::HashMap<poem::http::Method, poem::endpoint::BoxEndpoint<'static>>,
        >,
    ) {
    }
}
