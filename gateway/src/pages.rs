//! Pages for people: `/docs` and what it needs, from this executable and from nowhere else, `/`, which leads there, and
//! `/docs/problems`, where the `type` of every problem leads.

pub(crate) mod links;
pub(crate) mod shares;

use std::fmt::Write;

use bowerbird_nats::Code;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Request, Response, Route};
use poem_openapi::OpenApiService;

use crate::refused;

/// Nothing but what comes from here; Swagger UI styles its elements as it goes and draws its icons from data.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// As long as one version runs they do not change.
const CACHE_CONTROL: &str = "public, max-age=3600";

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bowerbird API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"#;

// The validator's badge would call out, so it is off.
const START: &str =
    "SwaggerUIBundle({ dom_id: '#ui', url: '/openapi.json', deepLinking: true, validatorUrl: null, tryItOutEnabled: true });\n";

/// The pages did not come out of poem-openapi as expected.
#[derive(Debug, thiserror::Error)]
#[error("poem-openapi's page has no {0} where it is looked for")]
pub struct MissingAsset(&'static str);

/// A document that never changes while the process runs.
struct Fixed {
    content_type: &'static str,
    body: Bytes,
}

/// Leads whoever opens the bare address in a browser to the docs; all else is for the inner endpoint.
pub(crate) struct Entrance<E>(pub(crate) E);

impl<E: Endpoint> Endpoint for Entrance<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if request.uri().path() != "/" {
            return Ok(self.0.call(request).await?.into_response());
        }
        Ok(refuse_writing(&request)
            .unwrap_or_else(|| Response::builder().status(StatusCode::SEE_OTHER).header(header::LOCATION, "/docs").finish()))
    }
}

/// A page can only be read.
fn refuse_writing(request: &Request) -> Option<Response> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = refused::carry(refused::from_status(StatusCode::METHOD_NOT_ALLOWED));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

impl Endpoint for Fixed {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if let Some(refused) = refuse_writing(&request) {
            return Ok(refused);
        }
        let mut response = Response::builder().content_type(self.content_type).body(self.body.clone());
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        Ok(response)
    }
}

fn fixed(content_type: &'static str, body: impl Into<Bytes>) -> Fixed {
    Fixed { content_type, body: body.into() }
}

/// Add the pages to the routes.
pub(crate) fn add(routes: Route, document: String) -> Result<Route, MissingAsset> {
    // poem-openapi keeps the files to itself; its page has them inlined.
    let page = OpenApiService::new((), "", "").swagger_ui_html();
    let style = between(&page, "<style charset=\"UTF-8\">", "</style>").ok_or(MissingAsset("style sheet"))?;
    let script = between(&page, "<script charset=\"UTF-8\">", "</script>").ok_or(MissingAsset("script"))?;
    Ok(routes
        .at("/openapi.json", fixed("application/json", document))
        .at("/docs", fixed("text/html; charset=utf-8", PAGE))
        .at("/docs/start.js", fixed("text/javascript; charset=utf-8", START))
        .at("/docs/swagger-ui.css", fixed("text/css; charset=utf-8", style.to_owned()))
        .at("/docs/swagger-ui.js", fixed("text/javascript; charset=utf-8", script.to_owned()))
        .at("/docs/problems", fixed("text/html; charset=utf-8", problems())))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}

fn problems() -> String {
    let mut rows = String::new();
    for code in Code::ALL {
        // Writing into a String cannot fail.
        let _ = writeln!(
            rows,
            "<tr id=\"{code}\"><td><code>{code}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            code.status(),
            escape(code.title()),
            escape(code.meaning())
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Bowerbird: problems</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <style>body {{ font-family: sans-serif; margin: 2rem; }} td, th {{ padding: .3rem .8rem; text-align: left; vertical-align: top; }} \
         tr:target {{ background: #ffd; }}</style>\n</head>\n<body>\n<h1>Problems</h1>\n\
         <p>Every error is a problem document (RFC 9457). Its <code>code</code> is one of these; the list is closed.</p>\n\
         <table>\n<tr><th>code</th><th>status</th><th>title</th><th>meaning</th></tr>\n{rows}</table>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_an_anchor() {
        let page = problems();
        for code in Code::ALL {
            assert!(page.contains(&format!("<tr id=\"{code}\">")), "{code}");
        }
    }

    #[test]
    fn the_parts_of_the_page_are_found() {
        assert!(add(Route::new(), String::new()).is_ok());
        let page = OpenApiService::new((), "", "").swagger_ui_html();
        assert!(between(&page, "<script charset=\"UTF-8\">", "</script>").unwrap().contains("SwaggerUIBundle"));
    }
}
