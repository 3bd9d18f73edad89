//! The operations listener: is it alive, is it ready, what does it measure. Not for the public.

use bowerbird_lifecycle::{Health, Metrics, Status};
use http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Request, Response, Route};
use serde_json::json;

use crate::refused;

/// `/livez`, `/readyz`, `/metrics`.
pub(crate) fn routes(health: Health, metrics: Metrics) -> Route {
    Route::new()
        .at("/livez", Reading(|| json_response(StatusCode::OK, &json!({ "status": "alive" }))))
        .at("/readyz", Reading(move || readiness(&health)))
        .at(
            "/metrics",
            Reading(move || {
                Response::builder()
                    .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
                    .body(metrics.encode())
            }),
        )
}

/// Something that is only read.
struct Reading<F>(F);

impl<F: Fn() -> Response + Send + Sync> Endpoint for Reading<F> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok((self.0)());
        }
        let mut response = refused::carry(refused::from_status(StatusCode::METHOD_NOT_ALLOWED));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        Ok(response)
    }
}

/// 200 or 503 with the same report: which part is ready, and why one is not.
fn readiness(health: &Health) -> Response {
    let parts: Vec<_> = health
        .report()
        .into_iter()
        .map(|(name, status)| match status {
            Status::Ready => json!({ "name": name, "ready": true }),
            Status::NotReady(why) => json!({ "name": name, "ready": false, "reason": why }),
        })
        .collect();
    let ready = health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, &json!({ "ready": ready, "parts": parts }))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = body.to_string().into_response().set_content_type("application/json");
    response.set_status(status);
    response
}
