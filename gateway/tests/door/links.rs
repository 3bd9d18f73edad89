//! The pages behind the links in e-mails.

use bowerbird_nats::{Code, Problem};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::stage::Stage;

#[tokio::test]
async fn opening_a_link_changes_nothing_and_its_button_does() {
    let stage = Stage::set().await;
    for (path, operation) in [("/verify-email", "account.verify_email"), ("/unsubscribe", "notification.unsubscribe")] {
        stage.reply(operation, json!({}));
        let link = format!("{path}?token=abc");
        for method in [Method::GET, Method::HEAD] {
            let answer = stage.http.send(method, &link, &[], None).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/html; charset=utf-8"));
            assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
        }
        let page = stage.http.get(&link).await.unwrap();
        let text = String::from_utf8_lossy(&page.body).into_owned();
        assert!(text.contains("<form method=\"post\">") && !text.contains("abc"), "{text}");
        assert_eq!(stage.asked(), [], "nothing was asked");

        // As a mail program does it (RFC 8058), and as the page's button does.
        for body in ["List-Unsubscribe=One-Click", ""] {
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            let answer = stage.http.send(Method::POST, &link, &headers, Some(Bytes::from(body))).await.unwrap();
            assert_eq!(answer.status, 200);
            let asked = stage.asked();
            assert_eq!(
                (asked[0].operation.as_str(), &asked[0].request, &asked[0].account),
                (operation, &json!({"token": "abc"}), &None)
            );
        }
        let put = stage.http.send(Method::PUT, &link, &[], None).await.unwrap();
        assert_eq!((put.status.as_u16(), put.header("allow")), (405, "GET, HEAD, POST"));
    }
}

#[tokio::test]
async fn a_link_that_does_not_work_says_so_to_people() {
    let stage = Stage::set().await;
    let post = async |path: &str| stage.http.send(Method::POST, path, &[], None).await.unwrap();
    let too_long = format!("/unsubscribe?token={}", "a".repeat(200));
    for broken in ["/unsubscribe", "/unsubscribe?token=", "/verify-email?nonsense=1", &too_long] {
        let answer = post(broken).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (400, "text/html; charset=utf-8"), "{broken}");
    }
    assert_eq!(stage.asked(), []);
    stage.refuse("account.verify_email", Problem::invalid("token", "is used"));
    let used = post("/verify-email?token=abc").await;
    assert_eq!(used.status, 400);
    assert!(String::from_utf8_lossy(&used.body).contains("This link does not work"));
    stage.refuse("account.verify_email", Problem::unavailable("busy", 3));
    let busy = post("/verify-email?token=abc").await;
    assert_eq!((busy.status.as_u16(), busy.header("retry-after")), (503, "3"));
    stage.refuse("notification.unsubscribe", Problem::new(Code::Internal, "<script>"));
    let failed = post("/unsubscribe?token=abc").await;
    assert!(failed.status == 500 && !String::from_utf8_lossy(&failed.body).contains("<script>"));
}
