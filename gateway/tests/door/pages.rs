//! The pages: served from the executable, allowed to load nothing from anywhere else.

use http::Method;

use crate::stage::Stage;

#[tokio::test]
async fn the_docs_load_everything_from_here() {
    let stage = Stage::set().await;
    let page = stage.http.get("/docs").await.unwrap();
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("http:") && !policy.contains("https:") && !policy.contains('*'), "{policy}");
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!html.contains("//"), "{html}");
    for (asset, content_type) in [
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/swagger-ui.js", "text/javascript; charset=utf-8"),
        ("/docs/start.js", "text/javascript; charset=utf-8"),
        ("/openapi.json", "application/json"),
        ("/docs/problems", "text/html; charset=utf-8"),
    ] {
        let answer = stage.http.get(asset).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, content_type), "{asset}");
        assert!(answer.header("cache-control").starts_with("public, max-age="), "{asset}");
        assert!(
            asset == "/docs/problems" || asset == "/docs/start.js" || asset == "/openapi.json" || html.contains(asset),
            "{asset}"
        );
    }
    let document = stage.http.get("/openapi.json").await.unwrap();
    assert_eq!(document.body, bowerbird_gateway::openapi_document().unwrap());
}

#[tokio::test]
async fn the_keys_are_public_and_may_be_kept_for_a_while() {
    let stage = Stage::set().await;
    let keys = stage.http.get("/.well-known/jwks.json").await.unwrap();
    assert_eq!(keys.header("cache-control"), "public, max-age=300");
    let set = keys.expect(200).unwrap();
    assert_eq!((&set["keys"][0]["kid"], &set["keys"][0]["use"]), (&"k1".into(), &"sig".into()));
    assert!(set["keys"][0].get("d").is_none());
}

#[tokio::test]
async fn the_bare_address_leads_to_the_docs() {
    let stage = Stage::set().await;
    for method in [Method::GET, Method::HEAD] {
        let answer = stage.http.send(method.clone(), "/", &[], None).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/docs"), "{method}");
    }
}
