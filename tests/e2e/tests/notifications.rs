//! What a person is told: in the inbox, live, and by e-mail, of a download that ran while nobody looked.

use std::time::Duration;

use anyhow::{Context, Result};
use bowerbird_e2e::{House, ended, text};
use bowerbird_testkit::{
    eventually,
    http::Http,
    ranged_server::{Content, Options, RangedServer},
    smtp::{Email, SmtpServer},
};
use bytes::Bytes;
use hyper::Method;
use serde_json::json;

const PATIENCE: Duration = Duration::from_mins(1);

/// The link to this page in an e-mail.
fn link(email: &Email, page: &str) -> Result<String> {
    let text = email.content.replace("=\r\n", "").replace("=3D", "=");
    let at = text.find(&format!("/{page}?token=")).with_context(|| format!("no link in {text}"))?;
    let start = text[..at].rfind("http://").context("a whole link")?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_/:?=.".contains(c);
    Ok(text[start..].chars().take_while(|c| is_part(*c)).collect())
}

async fn press(http: &Http, link: &str) -> Result<u16> {
    Ok(http.send(Method::POST, link, &[], Some(Bytes::new())).await?.status.as_u16())
}

#[tokio::test]
async fn a_download_that_completes_is_told_in_the_inbox_live_and_by_email() -> Result<()> {
    let (content, server) = (Content::new(5, 3_000_000), SmtpServer::start().await);
    let source = RangedServer::start(content.clone(), Options::default()).await;
    let mut house = House::start(&[("SMTP__URL", &server.url()), ("SMTP__FROM", "Bowerbird <drop@example.org>")]).await?;
    let password = "the long secret of ada";
    let register = json!({"account_name": "ada", "password": password, "email": "ada@example.org"});
    house.http().post("/v1/auth/register", &register).await?.expect(201)?;
    let http = house.login("ada").await?;

    // The address is verified by the link that is sent there, pressed as a person does.
    http.send(Method::POST, "/v1/account/email-verification", &[], None).await?.expect(202)?;
    let taken =
        async |count: usize| eventually(PATIENCE, "the e-mail arrives", async || server.taken().get(count - 1).cloned()).await;
    let verification = link(&taken(1).await, "verify-email")?;
    assert_eq!(house.http().get(&verification).await?.status, 200);
    assert_eq!(http.get("/v1/account").await?.expect(200)?["email_verified"], false);
    assert_eq!(press(&house.http(), &verification).await?, 200);
    assert_eq!(http.get("/v1/account").await?.expect(200)?["email_verified"], true);

    let settings = json!({"events": {"download.completed": ["inbox", "email"]}});
    let body = Some(Bytes::from(settings.to_string()));
    let changed =
        http.send(Method::PUT, "/v1/notification-settings", &[("content-type", "application/json")], body).await?.expect(200)?;
    assert_eq!(changed["email_status"], "on");
    let mut live = http.follow("/v1/events", &[]).await?;

    let create = json!({"url": source.url(), "file_name": "a.bin"});
    let download = http.post("/v1/downloads", &create).await?.expect(202)?;
    let download = ended(&http, text(&download, "id"), PATIENCE).await?;
    assert_eq!(text(&download, "status"), "completed", "{download}");

    let completed = live.event_named("download.completed").await?;
    assert_eq!(completed.data["entity_id"], download["id"]);
    let told = live.event_named("notification.delivered").await?;
    assert_eq!(told.data["data"]["notification"]["title"], "Downloaded: a.bin");
    let inbox = http.get("/v1/notifications?unread=true").await?.expect(200)?;
    assert_eq!(inbox["items"][0], told.data["data"]["notification"]);
    let email = taken(2).await;
    assert_eq!(email.to, ["ada@example.org"]);
    assert!(email.content.contains("Subject: Downloaded: a.bin\r\n"), "{}", email.content);

    // One press, and no more e-mail.
    assert_eq!(press(&house.http(), &link(&email, "unsubscribe")?).await?, 200);
    assert_eq!(http.get("/v1/notification-settings").await?.expect(200)?["email_status"], "disabled");

    // A stop ends the stream with a word and in time.
    assert_eq!(house.stop().await?, Some(0));
    let end = live.event_named("end").await?;
    assert_eq!(end.data["reason"], "stopping");
    Ok(())
}
