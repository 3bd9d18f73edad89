//! What stands before each operation, read off its own description: the token, the parameters that it knows, the
//! methods that its path takes. So an operation cannot be documented one way and guarded another.

use std::{collections::HashMap, sync::Arc};

use bowerbird_nats::{Problem, credential::Verifier};
use http::{HeaderValue, Method, header};
use poem::{Endpoint, EndpointExt, Request, Response, endpoint::BoxEndpoint};
use poem_openapi::{
    OpenApi, OperationId,
    registry::{MetaApi, MetaOperation, MetaParamIn, Registry},
};

use crate::{caller, parameter, refused};

/// An API whose operations are guarded.
pub(crate) struct Guarded<A> {
    api: A,
    verifier: Verifier,
}

impl<A: OpenApi> Guarded<A> {
    pub(crate) fn new(api: A, verifier: Verifier) -> Self {
        Guarded { api, verifier }
    }
}

type Table = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

impl<A: OpenApi> OpenApi for Guarded<A> {
    fn meta() -> Vec<MetaApi> {
        A::meta()
    }

    fn register(registry: &mut Registry) {
        A::register(registry);
    }

    fn add_routes(self, table: &mut Table) {
        let (mut inner, mut registry) = (Table::new(), Registry::new());
        self.api.add_routes(&mut inner);
        A::register(&mut registry);
        for path in A::meta().into_iter().flat_map(|api| api.paths) {
            let (route, parameters) = route_of(&path.path);
            let Some(mut endpoints) = inner.remove(&route) else { continue };
            let methods: Vec<Method> = path.operations.iter().map(|operation| operation.method.clone()).collect();
            let taken = table.entry(route).or_default();
            for operation in path.operations {
                let Some(endpoint) = endpoints.remove(&operation.method) else { continue };
                let method = operation.method.clone();
                let guard = Arc::new(Guard::new(&operation, &registry, parameters.clone(), self.verifier.clone(), endpoint));
                if method == Method::GET {
                    taken.insert(Method::HEAD, SharedGuard(Arc::clone(&guard)).boxed());
                }
                taken.insert(method, SharedGuard(guard).boxed());
            }
            refuse_other_methods(taken, &methods);
        }
    }
}

/// `/v1/downloads/{id}` as poem-openapi routes it, `/v1/downloads/:param0`, and the names: `id`.
fn route_of(path: &str) -> (String, Vec<String>) {
    let mut names = Vec::new();
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => {
                names.push(name.to_owned());
                format!(":param{}", names.len() - 1)
            }
            None => segment.to_owned(),
        })
        .collect();
    (segments.join("/"), names)
}

/// A path's other methods, so that the answer says which it takes (RFC 9110 §15.5.6).
fn refuse_other_methods(taken: &mut HashMap<Method, BoxEndpoint<'static>>, methods: &[Method]) {
    let mut allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if methods.contains(&Method::GET) {
        allowed.push("HEAD");
    }
    allowed.sort_unstable();
    let allow = HeaderValue::from_str(&allowed.join(", ")).unwrap_or(HeaderValue::from_static(""));
    for method in [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ] {
        taken.entry(method).or_insert_with(|| {
            let allow = allow.clone();
            poem::endpoint::make_sync(move |_| {
                let mut response = refused::carry(refused::from_status(http::StatusCode::METHOD_NOT_ALLOWED));
                response.headers_mut().insert(header::ALLOW, allow.clone());
                response
            })
            .boxed()
        });
    }
}

/// One operation and what stands before it.
struct Guard {
    endpoint: BoxEndpoint<'static>,
    verifier: Verifier,
    operation_id: Option<OperationId>,
    needs_token: bool,
    path_parameters: Vec<String>,
    query_parameters: Vec<String>,
    header_parameters: Vec<String>,
    /// What parameters must be, by name, where words can be found for it.
    forms: HashMap<String, String>,
}

struct SharedGuard(Arc<Guard>);

impl Endpoint for SharedGuard {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let mut response = match self.0.admit(request) {
            Ok(request) => self.0.run(request).await,
            Err(problem) => refused::carry(problem),
        };
        if let Some(operation_id) = self.0.operation_id {
            response.set_data(operation_id);
        }
        Ok(response)
    }
}

impl Guard {
    fn new(
        operation: &MetaOperation,
        registry: &Registry,
        path_parameters: Vec<String>,
        verifier: Verifier,
        endpoint: BoxEndpoint<'static>,
    ) -> Self {
        let names = |place: MetaParamIn| {
            operation
                .params
                .iter()
                .filter(|parameter| parameter.in_type == place)
                .map(|parameter| parameter.name.clone())
                .collect()
        };
        Guard {
            endpoint,
            verifier,
            operation_id: operation.operation_id.map(OperationId),
            needs_token: !operation.security.is_empty(),
            path_parameters,
            query_parameters: names(MetaParamIn::Query),
            header_parameters: names(MetaParamIn::Header),
            forms: operation
                .params
                .iter()
                .filter_map(|parameter| Some((parameter.name.clone(), parameter::form(&parameter.schema, registry)?)))
                .collect(),
        }
    }

    fn admit(&self, mut request: Request) -> Result<Request, Problem> {
        if self.needs_token {
            let (verified, credential) = caller::authenticate(request.headers(), &self.verifier)?;
            request.set_data(verified);
            request.set_data(credential);
        }
        self.check_query(request.uri().query().unwrap_or_default())?;
        for name in &self.header_parameters {
            let mut values = request.headers().get_all(name.as_str()).iter();
            let first = values.next();
            if values.next().is_some() {
                return Err(Problem::invalid(name, "given more than once"));
            }
            if first.is_some_and(|value| value.to_str().is_err()) {
                return Err(Problem::invalid(name, "only visible ASCII characters are allowed"));
            }
        }
        Ok(request)
    }

    fn check_query(&self, query: &str) -> Result<(), Problem> {
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if !self.query_parameters.iter().any(|known| *known == name) {
                let name: String = name.chars().take(100).collect();
                return Err(Problem::invalid(name, "not a parameter of this operation"));
            }
            if value.contains(['\0', '\u{fffd}']) {
                return Err(Problem::invalid(name, "has to be UTF-8 without NUL"));
            }
            if seen.contains(&name) {
                return Err(Problem::invalid(name, "given more than once"));
            }
            seen.push(name);
        }
        Ok(())
    }

    async fn run(&self, request: Request) -> Response {
        match self.endpoint.call(request).await {
            Ok(response) => response,
            Err(error) => {
                let problem = refused::explain(&error, &self.path_parameters, &self.forms).unwrap_or_else(|| {
                    tracing::debug!(%error, "the framework refused a request");
                    refused::from_status(error.status())
                });
                refused::carry(problem)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_path_is_found_in_the_routes() {
        assert_eq!(route_of("/v1/downloads"), ("/v1/downloads".into(), vec![]));
        assert_eq!(route_of("/v1/downloads/{id}/file"), ("/v1/downloads/:param0/file".into(), vec!["id".into()]));
        assert_eq!(route_of("/a/{b}/c/{d}"), ("/a/:param0/c/:param1".into(), vec!["b".into(), "d".into()]));
    }
}
