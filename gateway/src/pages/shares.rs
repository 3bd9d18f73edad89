//! `/s/{token}`: what somebody sees who was given a link. A page without script for people, JSON for programs, by what they
//! accept. Nothing here needs a token of an account; nothing can be learned about a link that there is not.

use bowerbird_nats::{
    Code, Problem,
    share::{FetchShare, OpenShare, Shared, UnlockShare},
};
use http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response, Route};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{escape, links::page};
use crate::{
    actors::{Actors, Origin},
    api::content::Content,
    payload::{self, BodyBounds},
    refused,
};

/// Longest token or ticket that is handed on.
const TEXT_MAX: usize = 200;
/// Longest body of a form: a password of 200 characters, each of which a form may write as twelve.
const FORM_MAX_BYTES: usize = 4096;

/// What is asked of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// What is it?
    Open,
    /// Here is the password.
    Unlock,
    /// Give me the content.
    Content,
}

struct ShareEndpoint {
    content: Content,
    asked: Asked,
}

/// Add them to the routes.
pub(crate) fn add(routes: Route, content: &Content) -> Route {
    let at = |asked| ShareEndpoint { content: content.clone(), asked };
    routes.at("/s/:token", at(Asked::Open)).at("/s/:token/unlock", at(Asked::Unlock)).at("/s/:token/content", at(Asked::Content))
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    password: String,
}

impl Endpoint for ShareEndpoint {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let for_people = wants_page(&request);
        let allowed: &[Method] = if self.asked == Asked::Unlock { &[Method::POST] } else { &[Method::GET, Method::HEAD] };
        if !allowed.contains(request.method()) {
            let mut response = refused::carry(refused::from_status(StatusCode::METHOD_NOT_ALLOWED));
            let allow = if self.asked == Asked::Unlock { "POST" } else { "GET, HEAD" };
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            return Ok(response);
        }
        let answered = match self.asked {
            Asked::Open => self.open(&request, for_people).await,
            Asked::Unlock => self.unlock(&mut request, for_people).await,
            // Looking at the head of it fetches nothing, so it does not count.
            Asked::Content if request.method() == Method::HEAD => self.open(&request, for_people).await,
            Asked::Content => self.fetch(&request).await,
        };
        let mut response = answered.unwrap_or_else(|problem| refuse(problem, &request, for_people));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().insert("x-robots-tag", HeaderValue::from_static("noindex"));
        Ok(response)
    }
}

impl ShareEndpoint {
    fn actors(&self) -> &Actors {
        &self.content.actors
    }

    async fn open(&self, request: &Request, for_people: bool) -> Result<Response, Problem> {
        let open = OpenShare { token: token(request)? };
        let shared = self.actors().ask(&open, &Origin::of(request)).await.map_err(|refused| refused.0)?;
        if !for_people {
            return Ok(as_json(&json!(shared)));
        }
        if shared.has_password {
            return Ok(page(StatusCode::OK, "A shared link", &form(&open.token, None)));
        }
        Ok(thing(&shared, &format!("/s/{}/content", open.token)))
    }

    async fn unlock(&self, request: &mut Request, for_people: bool) -> Result<Response, Problem> {
        let token = token(request)?;
        let password = password(request).await?;
        let origin = Origin::of(request);
        let unlock = UnlockShare { token: token.clone(), password };
        match self.actors().ask(&unlock, &origin).await {
            Ok(unlocked) => {
                let path = format!("/s/{token}/content?ticket={}", unlocked.ticket);
                if for_people {
                    return Ok(thing(&unlocked.shared, &path));
                }
                Ok(as_json(&json!({ "ticket": unlocked.ticket, "content": path, "expires_at": json!(unlocked)["expires_at"] })))
            }
            Err(refused) if for_people && refused.0.code == Code::InvalidCredentials => {
                Ok(page(StatusCode::UNAUTHORIZED, "A shared link", &form(&token, Some("This is not the password. Try again."))))
            }
            Err(refused) => Err(refused.0),
        }
    }

    async fn fetch(&self, request: &Request) -> Result<Response, Problem> {
        let token = token(request)?;
        let ticket = query(request, "ticket")?;
        let origin = Origin::of(request);
        // A place to stream from first: what there is no room for must not count.
        let place = self.content.place().map_err(|refused| refused.0)?;
        let fetched = self.actors().ask(&FetchShare { token, ticket }, &origin).await.map_err(|refused| refused.0)?;
        if let Some(link) = fetched.redirect {
            return Ok(Response::builder().status(StatusCode::FOUND).header(header::LOCATION, link.url).finish());
        }
        if let Some(streamed) = fetched.streamed {
            return self.content.stream(&streamed, place).await.map_err(|refused| refused.0);
        }
        match fetched.archive {
            Some(archive) => self.content.archive(archive, &origin, place).await.map_err(|refused| refused.0),
            None => Err(Problem::internal()),
        }
    }
}

/// Browsers say so; programs mostly accept anything.
fn wants_page(request: &Request) -> bool {
    request.header(header::ACCEPT).is_some_and(|accepted| accepted.contains("text/html"))
}

fn token(request: &Request) -> Result<String, Problem> {
    let token = request.raw_path_param("token").unwrap_or_default();
    let fits = (1..=TEXT_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(token.to_owned()) } else { Err(Problem::not_found("share")) }
}

fn query(request: &Request, name: &str) -> Result<Option<String>, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let found = url::form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name);
    match found {
        Some((_, value)) if value.len() > TEXT_MAX => Err(Problem::invalid(name, "is too long to be one")),
        found => Ok(found.map(|(_, value)| value.into_owned())),
    }
}

/// Of a form as a browser sends it, or as JSON.
async fn password(request: &mut Request) -> Result<String, Problem> {
    let content_type = request.header(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let patience = request.data::<BodyBounds>().copied().ok_or_else(Problem::internal)?.patience;
    let bounds = BodyBounds { limit_bytes: FORM_MAX_BYTES, patience };
    let bytes = payload::read(request.take_body(), None, bounds).await?;
    if content_type.starts_with("application/json") {
        return Ok(bowerbird_nats::json::parse::<Password>(&bytes)?.password);
    }
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the password as a form or as application/json"));
    }
    let found = url::form_urlencoded::parse(&bytes).find(|(name, _)| name == "password");
    found.map(|(_, value)| value.into_owned()).ok_or_else(|| Problem::invalid("password", "is missing"))
}

fn as_json(value: &serde_json::Value) -> Response {
    Response::builder().content_type("application/json").body(value.to_string())
}

/// For people, in words that say what to do; for programs, as everywhere.
fn refuse(problem: Problem, request: &Request, for_people: bool) -> Response {
    if !for_people {
        return refused::carry(problem);
    }
    if problem.code == Code::Forbidden
        && let Ok(token) = token(request)
    {
        // The ticket is too old: the password once more.
        return page(StatusCode::FORBIDDEN, "A shared link", &form(&token, None));
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let words = match problem.code {
        Code::NotFound => "This link leads nowhere: it was not copied as a whole, or it has ended.",
        Code::TooMany => "There were too many wrong passwords. Wait some minutes before the next try.",
        Code::InvalidState => "This link asks for no password.",
        Code::StorageUnavailable | Code::Unavailable | Code::Timeout => "That is not possible right now. Try again in a moment.",
        Code::Internal => "Something went wrong here. Try again later.",
        _ => "This cannot be understood.",
    };
    let mut response = page(status, "A shared link", &format!("<p>{}</p>", escape(words)));
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn form(token: &str, said: Option<&str>) -> String {
    let said = said.map(|said| format!("<p role=\"alert\">{}</p>\n", escape(said))).unwrap_or_default();
    format!(
        "{said}<form method=\"post\" action=\"/s/{token}/unlock\">\n<p><label>Password <input type=\"password\" name=\"password\" required \
         autocomplete=\"off\"></label></p>\n<button type=\"submit\">Open</button></form>"
    )
}

/// What it is, and the way to it.
fn thing(shared: &Shared, path: &str) -> Response {
    let name = shared.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("Files");
    let mut lines = Vec::new();
    match shared.size_bytes {
        Some(bytes) => lines.push(size(bytes)),
        None if shared.is_folder => lines.push("A folder, as a zip file".to_owned()),
        None => {}
    }
    if let Some(left) = shared.downloads_left {
        lines.push(if left == 1 {
            "Can be downloaded once more".to_owned()
        } else {
            format!("Can be downloaded {left} times more")
        });
    }
    if let Some(at) = shared.expires_at.map(|at| at.to_utc()) {
        lines.push(format!("Until {} {:02}:{:02} UTC", at.date(), at.hour(), at.minute()));
    }
    let lines: Vec<String> = lines.iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect();
    page(StatusCode::OK, name, &format!("{}<p><a href=\"{}\" rel=\"nofollow\">Download</a></p>", lines.concat(), escape(path)))
}

fn size(bytes: i64) -> String {
    let units = [(1_i64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_read_them() {
        for (bytes, told) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (734_003_200, "700.0 MiB"), (i64::MAX, "8388607.9 TiB")]
        {
            assert_eq!(size(bytes), told);
        }
    }

    #[test]
    fn what_others_named_cannot_leave_its_place_on_the_page() {
        let shared = Shared {
            has_password: false,
            name: Some("</title><script>alert(1)</script>".to_owned()),
            is_folder: false,
            size_bytes: Some(3),
            expires_at: None,
            downloads_left: Some(1),
        };
        let response = thing(&shared, "/s/abc/content");
        assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        let body = futures_util::FutureExt::now_or_never(response.into_body().into_string()).unwrap().unwrap();
        assert!(!body.contains("<script") && body.contains("href=\"/s/abc/content\""), "{body}");
    }
}
