//! Presigned links: each opens one thing, for a while, exactly as signed. And what browsers ask before they follow one.

use std::time::Duration;

use bowerbird_storage::{Audience, PresignGet, PresignPut, PresignedLink};

use super::{Check, Need, Outcome, Site, expect, failed};
use crate::support::content;

const MINUTE: Duration = Duration::from_mins(1);

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "a link writes the body that it was signed for, once",
        need: Need::Needed,
        run: |site| Box::pin(writing(site)),
    },
    Check {
        name: "a link to write takes no other length, type, checksum or condition",
        need: Need::Needed,
        run: |site| Box::pin(tampering(site)),
    },
    Check {
        name: "a body that has not the SHA-256 of its link is refused",
        need: Need::Needed,
        run: |site| Box::pin(another_body(site)),
    },
    Check { name: "a link opens no other key and no other method", need: Need::Needed, run: |site| Box::pin(elsewhere(site)) },
    Check { name: "a link ends", need: Need::Needed, run: |site| Box::pin(ending(site)) },
    Check {
        name: "a link to read says the name and the type that it is to come with",
        need: Need::Needed,
        run: |site| Box::pin(reading(site)),
    },
    Check {
        name: "a link to read is followed with a `Bearer` header of the redirect",
        need: Need::Without("clients that keep the header across a redirect ask for `?proxy=true`"),
        run: |site| Box::pin(bearing(site)),
    },
    Check {
        name: "the SHA-256 of what a link wrote is told",
        need: Need::Without("objects with an announced digest are read back"),
        run: |site| Box::pin(told_digest(site)),
    },
    Check {
        name: "a browser of another origin may ask for a link",
        need: Need::Without("pages of other origins cannot upload until the bucket has a CORS rule"),
        run: |site| Box::pin(preflight(site)),
    },
];

async fn link(site: &Site, key: &str, body: &[u8]) -> Result<PresignedLink, String> {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body).as_ref().try_into().map_err(|_| "no digest")?;
    let put = PresignPut {
        content_length: body.len() as u64,
        content_type: Some("text/plain".to_owned()),
        sha256: Some(sha256),
        if_none_match: true,
    };
    site.bucket.presign_put(key, MINUTE, &put, Audience::Internal).await.map_err(failed)
}

fn demanded(link: &PresignedLink) -> Vec<(&str, &str)> {
    link.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

async fn writing(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/writing"), content(1, 10_000));
    let link = link(site, &key, &body).await?;
    let answer = site.follow(&link, &demanded(&link), &body).await;
    expect(answer.status == 200, format!("{} {}", answer.status, answer.text()))?;
    let info = site.bucket.head(&key).await.map_err(failed)?.ok_or("it is not there")?;
    expect((info.size_bytes, info.content_type.as_deref()) == (10_000, Some("text/plain")), format!("{info:?}"))?;
    let again = site.follow(&link, &demanded(&link), &body).await;
    expect(again.status == 412, format!("a second time it answers {}", again.status))
}

async fn tampering(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/tampering"), content(2, 10_000));
    let link = link(site, &key, &body).await?;
    let with = |name: &str, value: Option<&'static str>| -> Vec<(&str, &str)> {
        let changed = demanded(&link)
            .into_iter()
            .filter_map(|(found, old)| if found == name { value.map(|value| (found, value)) } else { Some((found, old)) });
        changed.collect()
    };
    for (what, headers, sent) in [
        ("another length", with("content-length", Some("9999")), &body[..9_999]),
        ("another type", with("content-type", Some("text/html")), &body[..]),
        ("no type", with("content-type", None), &body[..]),
        ("no condition", with("if-none-match", None), &body[..]),
        ("no checksum", with("x-amz-checksum-sha256", None), &body[..]),
    ] {
        let answer = site.follow(&link, &headers, sent).await;
        expect((400..500).contains(&answer.status), format!("{what} is answered {}", answer.status))?;
        expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), format!("{what} left an object"))?;
    }
    Ok(())
}

async fn another_body(site: &Site) -> Outcome {
    let (key, mut body) = (site.key("link/another-body"), content(3, 10_000));
    let link = link(site, &key, &body).await?;
    body[5_000] ^= 1;
    let answer = site.follow(&link, &demanded(&link), &body).await;
    expect((400..500).contains(&answer.status), format!("it is answered {}", answer.status))?;
    expect(site.bucket.head(&key).await.map_err(failed)?.is_none(), "it is there")
}

async fn elsewhere(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/elsewhere"), content(4, 1_000));
    let link = link(site, &key, &body).await?;
    let (path, query) = (link.url.path(), link.url.query().unwrap_or_default());
    for (method, target) in [
        ("PUT", format!("{path}-other?{query}")),
        ("GET", format!("{path}?{query}")),
        ("DELETE", format!("{path}?{query}")),
        ("PUT", format!("{path}?{}", query.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))),
    ] {
        let answer = site.raw(method, &target, &demanded(&link), &body).await;
        expect((400..500).contains(&answer.status), format!("{method} {} is answered {}", &target[..60], answer.status))?;
    }
    expect(site.bucket.list(&key, None, 10).await.map_err(failed)?.is_empty(), "something was written")
}

async fn ending(site: &Site) -> Outcome {
    let key = site.key("link/ending");
    site.bucket.put(&key, b"content".as_slice(), None, None).await.map_err(failed)?;
    let past = site.at(time::Duration::minutes(-2));
    let link = past.presign_get(&key, MINUTE, &PresignGet::default(), Audience::Internal).await.map_err(failed)?;
    let answer = site.follow(&link, &[], b"").await;
    expect(answer.status == 403, format!("it is answered {}", answer.status))
}

async fn reading(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/reading"), content(5, 1_000));
    site.bucket.put(&key, body.clone(), Some("text/html"), None).await.map_err(failed)?;
    let get = PresignGet {
        file_name: Some("page.html".to_owned()),
        content_type: Some("application/octet-stream".to_owned()),
        ..PresignGet::default()
    };
    let link = site.bucket.presign_get(&key, MINUTE, &get, Audience::Internal).await.map_err(failed)?;
    let answer = site.follow(&link, &[], b"").await;
    expect(answer.status == 200 && answer.body == body, format!("{} {} bytes", answer.status, answer.body.len()))?;
    let disposition = answer.header("content-disposition").unwrap_or_default();
    expect(disposition.starts_with("attachment") && disposition.contains("page.html"), format!("it comes as `{disposition}`"))?;
    expect(
        answer.header("content-type") == Some("application/octet-stream"),
        format!("it is {:?}", answer.header("content-type")),
    )
}

async fn bearing(site: &Site) -> Outcome {
    let key = site.key("link/bearing");
    site.bucket.put(&key, b"content".as_slice(), None, None).await.map_err(failed)?;
    let link = site.bucket.presign_get(&key, MINUTE, &PresignGet::default(), Audience::Internal).await.map_err(failed)?;
    let answer = site.follow(&link, &[("Authorization", "Bearer of.another.server")], b"").await;
    expect(answer.status == 200, format!("it is answered {}", answer.status))
}

async fn told_digest(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/told-digest"), content(6, 1_000));
    let link = link(site, &key, &body).await?;
    let answer = site.follow(&link, &demanded(&link), &body).await;
    expect(answer.status == 200, format!("{} {}", answer.status, answer.text()))?;
    let told = site.bucket.head(&key).await.map_err(failed)?.and_then(|info| info.sha256);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
    expect(told.as_ref().map(<[u8; 32]>::as_slice) == Some(digest.as_ref()), if told.is_some() { "another" } else { "none" })
}

async fn preflight(site: &Site) -> Outcome {
    let (key, body) = (site.key("link/preflight"), content(7, 100));
    let link = link(site, &key, &body).await?;
    let target = format!("{}?{}", link.url.path(), link.url.query().unwrap_or_default());
    let asked = [
        ("Origin", "https://drive.example.org"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "content-type,if-none-match,x-amz-checksum-sha256"),
    ];
    let answer = site.raw("OPTIONS", &target, &asked, b"").await;
    let allowed = answer.header("access-control-allow-origin").unwrap_or_default();
    expect(
        (200..300).contains(&answer.status) && matches!(allowed, "*" | "https://drive.example.org"),
        format!("{} `{allowed}`", answer.status),
    )
}
