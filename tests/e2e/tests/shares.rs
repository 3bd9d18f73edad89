//! Links that were handed out, as strangers follow them: counted exactly, and over at once when they are over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bowerbird_e2e::{House, text};
use bowerbird_testkit::{eventually, http::Http};
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
/// A program, not a browser.
const JSON: &[(&str, &str)] = &[("accept", "application/json")];

/// A file with these bytes, put as clients put them.
async fn upload(house: &House, http: &Http, name: &str, bytes: &Bytes) -> Result<String> {
    let announced = json!({"file_name": name, "size_bytes": bytes.len()});
    let upload = http.post("/v1/uploads", &announced).await?.expect(201)?;
    let transfer = &upload["transfer"];
    let (host, target) = text(transfer, "url").trim_start_matches("http://").split_once('/').context("a link")?;
    ensure!(host == house.objects.to_string(), "the link leads to {host}");
    let headers: Vec<(&str, &str)> = transfer["headers"]
        .as_object()
        .context("headers")?
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
        .collect();
    let put = Http::new(host).send(Method::PUT, &format!("/{target}"), &headers, Some(bytes.clone())).await?;
    ensure!(put.status == 200, "{}", String::from_utf8_lossy(&put.body));
    let id = text(&upload, "id").to_owned();
    let there = eventually(PATIENCE, "the file is there without another call", async || {
        let upload = http.get(&format!("/v1/uploads/{id}")).await.ok()?.json();
        upload["file_id"].as_str().map(str::to_owned)
    });
    Ok(there.await)
}

/// The share, and the path of its link.
async fn share(http: &Http, asked: &Value) -> Result<(Value, String)> {
    let share = http.post("/v1/shares", asked).await?.expect(201)?;
    let (_, token) = text(&share, "url").rsplit_once("/s/").context("a link")?;
    let path = format!("/s/{token}/content");
    Ok((share, path))
}

async fn status(house: &House, path: &str) -> Result<u16> {
    Ok(house.http().send(Method::GET, path, JSON, None).await?.status.as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_so_many_downloads_gives_exactly_so_many_whoever_races() -> Result<()> {
    const MOST: usize = 8;
    let house = House::start(&[]).await?;
    let http = house.account("ada").await?;
    let bytes = Bytes::from((0..3_000_000_u32).map(|index| (index % 251) as u8).collect::<Vec<_>>());
    let file = upload(&house, &http, "a.bin", &bytes).await?;
    let (made, path) = share(&http, &json!({"file_id": file, "max_downloads": MOST})).await?;
    let fetches = (0..MOST + 16).map(|_| async { house.http().send(Method::GET, &path, JSON, None).await });
    let answers = join_all(fetches).await.into_iter().collect::<Result<Vec<_>>>()?;
    let whole = answers.iter().filter(|answer| answer.status == 200 && answer.body == bytes).count();
    let refused = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!((whole, refused), (MOST, 16));
    let listed = http.get("/v1/shares").await?.expect(200)?;
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["downloads"]), (&made["id"], &json!(MOST)));
    assert_eq!(status(&house, &path).await?, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_over_at_once_when_it_is_revoked_lapses_or_its_owner_loses_the_right() -> Result<()> {
    let house = House::start(&[]).await?;
    let http = house.account("ada").await?;
    let bytes = Bytes::from_static(b"what is shared");
    let file = upload(&house, &http, "a.txt", &bytes).await?;
    let of_file = json!({"file_id": file});

    // Without a maximum it leads to a link that lives a minute at most.
    let (revoked, path) = share(&http, &of_file).await?;
    let redirect = house.http().send(Method::GET, &path, JSON, None).await?;
    assert_eq!(redirect.status, 302);
    let location: url::Url = redirect.header("location").parse()?;
    let lives: u64 = location.query_pairs().find(|(name, _)| name == "X-Amz-Expires").context("a signed link")?.1.parse()?;
    assert!((1..=60).contains(&lives), "{lives} s");

    // Revoked.
    http.delete(&format!("/v1/shares/{}", text(&revoked, "id"))).await?.expect(204)?;
    assert_eq!(status(&house, &path).await?, 404);

    // Its time is over.
    let until = time::OffsetDateTime::from_unix_timestamp(now(&house).await? + 3)?;
    let until = until.format(&time::format_description::well_known::Rfc3339)?;
    let (_, path) = share(&http, &json!({"file_id": file, "expires_at": until})).await?;
    assert_eq!(status(&house, &path).await?, 302);
    eventually(PATIENCE, "it lapses", async || (status(&house, &path).await.ok()? == 404).then_some(())).await;
    assert!(now(&house).await? >= until_seconds(&until)?, "not before its time");

    // The file lies in the trash, also when it is taken out again.
    let (_, path) = share(&http, &of_file).await?;
    assert_eq!(status(&house, &path).await?, 302);
    http.delete(&format!("/v1/files/{file}")).await?.expect(204)?;
    assert_eq!(status(&house, &path).await?, 404);
    http.send(Method::POST, &format!("/v1/trash/{file}/restore"), &[], None).await?.expect(200)?;
    assert_eq!(status(&house, &path).await?, 404);

    // The owner may do nothing any more.
    let (_, path) = share(&http, &of_file).await?;
    assert_eq!(status(&house, &path).await?, 302);
    sql(&house, "UPDATE accounts SET disabled_at = now() WHERE account_name = 'ada'").await?;
    assert_eq!(status(&house, &path).await?, 404);
    Ok(())
}

fn until_seconds(text: &str) -> Result<i64> {
    Ok(time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?.unix_timestamp())
}

/// Seconds of the clock that decides, which is the database's.
async fn now(house: &House) -> Result<i64> {
    Ok(sql(house, "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint").await?.parse()?)
}

/// One statement for the database of the house, as its operator runs one.
async fn sql(house: &House, statement: &str) -> Result<String> {
    let credentials = std::fs::read_to_string(house.data_dir().join("credentials.toml"))?;
    let password = credentials.lines().find_map(|line| line.strip_prefix("postgres_password = ")).context("its password")?;
    let output = tokio::process::Command::new("psql")
        .args(["-U", "postgres", "-d", "bowerbird", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, "-h"])
        .arg(house.data_dir().join("postgres/run"))
        .env("PGPASSWORD", password.trim_matches('"'))
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
