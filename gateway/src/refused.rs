//! Errors on their way out: a [`Problem`] travels in the extensions of a response and is written in one place, where
//! the request id is known.

use std::collections::HashMap;

use bowerbird_nats::{Code, Problem, problem::CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response, error::ResponseError};
use poem_openapi::{
    ApiResponse,
    error::{ParseParamError, ParsePathError},
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::Type,
};

/// An operation did not do what was asked; why.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refused(#[from] pub(crate) Problem);

impl Refused {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Refused(Problem::new(code, detail))
    }
}

impl ResponseError for Refused {
    fn status(&self) -> StatusCode {
        status(self.0.code)
    }

    fn as_response(&self) -> Response {
        carry(self.0.clone())
    }
}

/// In the document every problem is described once, as `default`; `document` replaces it by what can really occur.
impl ApiResponse for Refused {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: None,
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: CONTENT_TYPE,
                    schema: MetaSchemaRef::Reference(Problem::name().into_owned()),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A response that carries a problem, not yet written.
pub(crate) fn carry(problem: Problem) -> Response {
    let mut response = status(problem.code).into_response();
    response.set_data(problem);
    response
}

/// What a framework error means, with the name of the parameter that is at fault. `forms` says what parameters must be.
pub(crate) fn explain(error: &poem::Error, path_parameters: &[String], forms: &HashMap<String, String>) -> Option<Problem> {
    if let Some(Refused(problem)) = error.downcast_ref() {
        return Some(problem.clone());
    }
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        let message = forms.get(error.name).cloned().unwrap_or_else(|| reason(&error.reason));
        return Some(Problem::invalid(error.name, message));
    }
    if let Some(error) = error.downcast_ref::<ParsePathError>() {
        let position = error.name.strip_prefix("param").and_then(|number| number.parse::<usize>().ok());
        let name = position.and_then(|position| path_parameters.get(position)).map_or(error.name, String::as_str);
        return Some(Problem::invalid(name, reason(&error.reason)));
    }
    None
}

/// poem-openapi says `failed to parse "type": reason`, and of a limit `verification failed. minimum(1, exclusive: false)`.
/// The caller knows no such types and wants a sentence.
fn reason(text: &str) -> String {
    if let Some((rule, rest)) = text.strip_prefix("verification failed. ").and_then(|rule| rule.split_once('(')) {
        let value = rest.split([',', ')']).next().unwrap_or_default();
        return match rule {
            "minimum" => format!("must be at least {value}"),
            "maximum" => format!("must be at most {value}"),
            "minLength" => format!("must have at least {value} characters"),
            "maxLength" => format!("must have at most {value} characters"),
            _ => "is not of the documented form".to_owned(),
        };
    }
    if text.ends_with(" expects an input value.") {
        return "is missing".to_owned();
    }
    let text = text.split_once(" (occurred while parsing ").map_or(text, |(said, _)| said);
    text.strip_prefix("failed to parse ").and_then(|rest| rest.split_once("\": ")).map_or(text, |(_, reason)| reason).to_owned()
}

/// The problem for a status that the framework chose.
pub(crate) fn from_status(status: StatusCode) -> Problem {
    match status.as_u16() {
        404 => Problem::new(Code::NotFound, "there is nothing at this path; see /docs"),
        405 => Problem::new(Code::MethodNotAllowed, "this path does not take this method; see the Allow header"),
        413 => Problem::new(Code::BodyTooLarge, "the body is larger than allowed"),
        415 => Problem::new(Code::UnsupportedMediaType, "the body has to be application/json"),
        400..=499 => Problem::new(Code::BadRequest, "the request is malformed"),
        _ => Problem::internal(),
    }
}

/// Write the problem of an answer into its body.
pub(crate) fn write(response: &mut Response, mut problem: Problem, request_id: &str, with_credential: bool) {
    problem.request_id = Some(request_id.to_owned());
    response.set_status(status(problem.code));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if problem.status == StatusCode::UNAUTHORIZED.as_u16() {
        challenge(headers, &problem, with_credential);
    }
    if matches!(problem.code, Code::BodyTooLarge | Code::RequestTimeout) {
        // What is left of the body is not read.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.set_body(serde_json::to_vec(&problem).unwrap_or_default());
}

/// RFC 6750 §3: no error code when no credential was sent.
fn challenge(headers: &mut HeaderMap, problem: &Problem, with_credential: bool) {
    let rejected = with_credential && matches!(problem.code, Code::Unauthorized | Code::TokenExpired);
    let value = match (rejected, problem.code) {
        (false, _) => "Bearer realm=\"bowerbird\"",
        (true, Code::TokenExpired) => {
            "Bearer realm=\"bowerbird\", error=\"invalid_token\", error_description=\"the access token has expired\""
        }
        (true, _) => "Bearer realm=\"bowerbird\", error=\"invalid_token\"",
    };
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_framework_says_becomes_a_sentence() {
        let cases = [
            ("verification failed. minimum(1, exclusive: false)", "must be at least 1"),
            ("verification failed. maximum(200, exclusive: false)", "must be at most 200"),
            ("verification failed. maxLength(255)", "must have at most 255 characters"),
            ("verification failed. pattern(\"^[!-~]+$\")", "is not of the documented form"),
            ("failed to parse \"integer_uint32\": invalid digit found in string", "invalid digit found in string"),
            ("Type \"string\" expects an input value.", "is missing"),
            ("failed to parse \"x\": not so (occurred while parsing \"optional_x\")", "not so"),
            ("anything else", "anything else"),
        ];
        for (said, sentence) in cases {
            assert_eq!(reason(said), sentence);
        }
    }
}
