//! Content that a browser could run comes as an attachment of a type that runs nothing, whatever it was declared as.

use bowerbird_nats::file::PresignFile;
use bowerbird_testkit::http::Http;
use http::Method;

use super::world::{World, call};

#[tokio::test]
async fn every_combination_of_active_content_and_declared_type_comes_as_an_attachment() {
    let world = World::new().await;
    let caller = world.account().await;
    let active = [
        ("page.html", "<!doctype html><script>alert(1)</script>"),
        ("image.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>"),
        ("data.xml", "<?xml version=\"1.0\"?><?xml-stylesheet href=\"x.xsl\"?><a/>"),
        ("paper.pdf", "%PDF-1.7 /JavaScript"),
        ("mail.mhtml", "MIME-Version: 1.0\r\nContent-Type: multipart/related\r\n\r\n"),
        ("code.js", "alert(1)"),
        ("\"; filename=x.html; \r\n\u{202e}.png", "<script>alert(1)</script>"),
    ];
    let declared = [
        "text/html",
        "text/html; charset=utf-8",
        "image/svg+xml",
        "application/xml",
        "application/xhtml+xml",
        "application/pdf",
        "multipart/related",
        "text/javascript",
        "image/png",
        "text/plain",
        "application/octet-stream",
        "TEXT/HTML",
        "image/png, text/html",
        "",
    ];
    let inert = ["application/octet-stream", "image/png", "text/plain"];
    let mut inline = 0;
    for (number, (name, content)) in active.iter().enumerate() {
        let file = world.file(caller, "/", &number.to_string(), content).await;
        for declared in declared {
            sqlx::query("UPDATE files SET name = $2, content_type = $3 WHERE id = $1")
                .bind(file.id.0)
                .bind(name)
                .bind(declared)
                .execute(&world.pool)
                .await
                .unwrap();
            for internal in [false, true] {
                let link = world.requests.clone().presign(call(caller, PresignFile { id: file.id, internal })).await.unwrap();
                let url: url::Url = link.url.parse().unwrap();
                let http = Http::new(url.authority().to_owned());
                let path = &url[url::Position::BeforePath..];
                let answer = http.send(Method::GET, path, &[], None).await.unwrap();
                assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, content.as_bytes()));
                let (kind, disposition) = (answer.header("content-type"), answer.header("content-disposition"));
                assert!(inert.contains(&kind), "{name} as {declared}: {kind}");
                inline += usize::from(!disposition.starts_with("attachment; filename=\""));
                // Without the signed headers, or with others, the link is void.
                for altered in [
                    link.url.replace("attachment", "inline"),
                    link.url.replace("response-content-disposition", "response-content-disposition-"),
                ] {
                    let url: url::Url = altered.parse().unwrap();
                    let answer = http.send(Method::GET, &url[url::Position::BeforePath..], &[], None).await.unwrap();
                    assert_eq!(answer.status, 403, "{altered}");
                }
            }
        }
    }
    assert_eq!(inline, 0, "nothing is shown in the browser");
}
