//! The pages behind the links in e-mails. Opening one changes nothing, as mail programs open links by themselves; a button
//! on it does, with a POST to the same address. For unsubscribing that POST is also what mail programs send when their own
//! button is pressed (RFC 8058).

use bowerbird_nats::{Code, Problem, account::VerifyEmail, notification::Unsubscribe};
use http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response, Route};

use crate::{
    actors::{Actors, Origin},
    pages::escape,
    refused,
};

/// Nothing but what is in the page, and forms that lead here.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Longest token that is handed on.
const TOKEN_MAX: usize = 128;

/// What a link is for.
#[derive(Clone, Copy)]
enum Purpose {
    VerifyEmail,
    Unsubscribe,
}

/// The texts of one purpose.
struct Words {
    title: &'static str,
    question: &'static str,
    button: &'static str,
    done: &'static str,
}

impl Purpose {
    fn words(self) -> Words {
        match self {
            Purpose::VerifyEmail => Words {
                title: "Confirm your e-mail address",
                question: "Confirm that you read this address?",
                button: "Confirm",
                done: "The address is confirmed.",
            },
            Purpose::Unsubscribe => Words {
                title: "No more e-mail",
                question: "Get no more e-mail from here? What happens can still be read in the inbox.",
                button: "No more e-mail",
                done: "No more e-mail is sent to this account.",
            },
        }
    }
}

struct LinkPage {
    actors: Actors,
    purpose: Purpose,
}

/// Add the pages to the routes.
pub(crate) fn add(routes: Route, actors: &Actors) -> Route {
    let page = |purpose| LinkPage { actors: actors.clone(), purpose };
    routes.at("/verify-email", page(Purpose::VerifyEmail)).at("/unsubscribe", page(Purpose::Unsubscribe))
}

impl Endpoint for LinkPage {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let words = self.purpose.words();
        let question = || {
            format!(
                "<p>{}</p>\n<form method=\"post\"><button type=\"submit\">{}</button></form>",
                escape(words.question),
                escape(words.button)
            )
        };
        Ok(match *request.method() {
            Method::GET | Method::HEAD => page(StatusCode::OK, words.title, &question()),
            Method::POST => match self.act(&request).await {
                Ok(()) => page(StatusCode::OK, words.title, &format!("<p>{}</p>", escape(words.done))),
                Err(problem) => {
                    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    let mut response = page(status, words.title, &format!("<p>{}</p>", escape(sentence(&problem))));
                    if let Some(seconds) = problem.retry_after {
                        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                    }
                    response
                }
            },
            _ => {
                let mut response = refused::carry(refused::from_status(StatusCode::METHOD_NOT_ALLOWED));
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
                response
            }
        })
    }
}

impl LinkPage {
    async fn act(&self, request: &Request) -> Result<(), Problem> {
        let query = request.uri().query().unwrap_or_default();
        let token = url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "token")
            .map(|(_, token)| token.into_owned())
            .filter(|token| !token.is_empty() && token.len() <= TOKEN_MAX)
            .ok_or_else(|| Problem::invalid("token", "is missing"))?;
        let origin = Origin::of(request);
        let asked = match self.purpose {
            Purpose::VerifyEmail => self.actors.ask(&VerifyEmail { token }, &origin).await,
            Purpose::Unsubscribe => self.actors.ask(&Unsubscribe { token }, &origin).await,
        };
        asked.map(|_| ()).map_err(|refused| refused.0)
    }
}

/// For people: which link it was is plain, what a token is need not be known.
fn sentence(problem: &Problem) -> &str {
    match problem.code {
        Code::InvalidValue => "This link does not work: it was used, is too old, or was not copied as a whole.",
        Code::Internal => "Something went wrong here. Try again later.",
        _ => "That is not possible right now. Try again in a moment.",
    }
}

/// A page for people: no script, nothing from elsewhere.
pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let title = escape(title);
    let mut response = Response::builder().status(status).content_type("text/html; charset=utf-8").body(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>body {{ font-family: sans-serif; margin: 2rem; }}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    ));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}
