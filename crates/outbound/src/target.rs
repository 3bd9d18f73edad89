//! May this URL be fetched? What can be said from its text, before any name is resolved.
//!
//! A URL is parsed once, as browsers do it (WHATWG), and only the parsed value is used afterwards, so that no two parsers
//! can disagree about the host.

use std::net::IpAddr;

use url::{Host, ParseError, Url};

use crate::address::{AddressPolicy, Refusal};

/// Longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 4096;

/// Why a URL is refused, in words for whoever gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a URL.
    #[error("not a valid URL: {0}")]
    Malformed(String),
    /// Longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than {MAX_URL_BYTES} characters")]
    TooLong,
    /// Neither `http` nor `https`, or nothing that says which.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// `user:password@` in front of the host.
    #[error("user name and password do not belong in the URL; give an Authorization header instead")]
    UserInfo,
    /// The port is not open.
    #[error("this port may not be used here")]
    Port,
    /// The name belongs to a private network.
    #[error("this host name may not be used here")]
    Name,
    /// The address is not public. What it is exactly is for the log.
    #[error("this address may not be used here")]
    Address(Refusal),
}

impl Error {
    /// Whether the URL is well-formed and the operator's rules close its target.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Error::Port | Error::Name | Error::Address(_))
    }
}

/// A URL that may be fetched, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: TargetHost,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TargetHost {
    Address(IpAddr),
    /// In lower case, without the dot at the end.
    Name(String),
}

impl Target {
    /// Judge a URL by its text.
    pub fn parse(text: &str, policy: &AddressPolicy) -> Result<Target, Error> {
        if text.len() > MAX_URL_BYTES {
            return Err(Error::TooLong);
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::RelativeUrlWithoutBase => Error::Scheme,
            error => Error::Malformed(error.to_string()),
        })?;
        Target::judge(url, policy)
    }

    /// Judge a URL that is parsed already, such as the one that a redirect leads to.
    pub fn judge(url: Url, policy: &AddressPolicy) -> Result<Target, Error> {
        let target = Target::without_policy(url)?;
        policy.check_port(target.port).map_err(|_| Error::Port)?;
        match &target.host {
            TargetHost::Address(address) => {
                policy.check(*address, target.port).map_err(Error::Address)?;
            }
            TargetHost::Name(name) => {
                if is_private_name(name) && !policy.allows_something() {
                    return Err(Error::Name);
                }
            }
        }
        Ok(target)
    }

    /// Judge the form only. For the one endpoint that the operator configured.
    pub(crate) fn without_policy(mut url: Url) -> Result<Target, Error> {
        if url.as_str().len() > MAX_URL_BYTES {
            return Err(Error::TooLong);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        let port = url.port_or_known_default().ok_or(Error::Port)?;
        let host = match url.host() {
            None => return Err(Error::Malformed("there is no host".to_owned())),
            Some(Host::Ipv4(address)) => TargetHost::Address(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => TargetHost::Address(IpAddr::V6(address).to_canonical()),
            Some(Host::Domain(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                let labels_fit = name.split('.').all(|label| !label.is_empty() && label.len() <= 63);
                if !labels_fit || name.len() > 253 {
                    return Err(Error::Malformed("the host name is not a name".to_owned()));
                }
                TargetHost::Name(name)
            }
        };
        url.set_fragment(None);
        Ok(Target { url, host, port })
    }

    /// The URL, normalised, without its fragment.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn host(&self) -> &TargetHost {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether both have the same scheme, host and port.
    pub(crate) fn same_origin(&self, other: &Target) -> bool {
        self.is_https() == other.is_https() && self.host == other.host && self.port == other.port
    }
}

/// Names that stand for this machine or its network. They may be fetched only from addresses that the operator opened.
pub(crate) fn is_private_name(name: &str) -> bool {
    !name.contains('.')
        || ["localhost", "local", "internal", "home.arpa", "localdomain", "intranet", "lan"]
            .iter()
            .any(|zone| name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        || name.starts_with("metadata.")
}

/// Names that stand for this machine by definition (RFC 6761 §6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, Error> {
        Target::parse(text, &AddressPolicy::new(Vec::new(), Vec::new(), vec![80, 443, 8080, 8443], Vec::new()))
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        for host in [
            "127.0.0.1",
            "0177.0.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.1",
            "127.0.0.1.",
            "①②⑦.⓪.⓪.①",
            "１２７.０.０.１",
            "127。0。0。1",
            "0300.0250.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:10.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "0",
            "0.0.0.0",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "255.255.255.255",
            "0xffffffff",
            "4294967295",
            "0377.0377.0377.0377",
        ] {
            let refused = parse(&format!("http://{host}/")).expect_err(host);
            assert!(matches!(refused, Error::Address(_)), "{host}: {refused:?}");
        }
        for url in
            ["http:/127.0.0.1", "http:127.0.0.1", "http:///127.0.0.1", "http://127.0.0.1\\@example.com/", "http://127.0\t.0.1/"]
        {
            assert!(matches!(parse(url), Err(Error::Address(_))), "{url}");
        }
    }

    #[test]
    fn names_of_private_networks_are_refused() {
        for name in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "LocalHost.",
            "a.localhost",
            "printer.local",
            "vault.internal",
            "metadata.google.internal",
            "metadata.example.com",
            "intranet",
            "db",
            "router.home.arpa",
            "ⓛocalhost",
        ] {
            assert_eq!(parse(&format!("http://{name}/")), Err(Error::Name), "{name}");
        }
        for name in [
            "example.com",
            "example.com.",
            "notlocalhost.example",
            "mylocal.example",
            "xn--bcher-kva.example",
            "internal.example.com",
        ] {
            assert!(parse(&format!("http://{name}/")).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_no_http_url_is_refused() {
        for url in [
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "data:text/plain,x",
            "javascript:1",
            "",
            "example.com",
            "example.com:80/",
        ] {
            assert_eq!(parse(url), Err(Error::Scheme), "{url}");
        }
        for url in ["http://user@example.com/", "http://user:word@example.com/", "http://:word@example.com/"] {
            assert_eq!(parse(url), Err(Error::UserInfo), "{url}");
        }
        for url in [
            "http://",
            "http://[fe80::1%25eth0]/",
            "http://256.1.1.1/",
            "http://1.1.1.1.1/",
            "http://example.com:65536/",
            "http://a..b/",
            "http://ex ample.com/",
            "http://[example.com]/",
        ] {
            assert!(matches!(parse(url), Err(Error::Malformed(_))), "{url}: {:?}", parse(url));
        }
        assert_eq!(parse(&format!("http://example.com/{}", "a".repeat(5000))), Err(Error::TooLong));
    }

    #[test]
    fn only_listed_ports_can_be_named() {
        assert_eq!(parse("http://example.com:22/"), Err(Error::Port));
        assert_eq!(parse("http://example.com:0/"), Err(Error::Port));
        assert!(parse("https://example.com:8443/").is_ok());
    }

    #[test]
    fn a_backslash_ends_the_host_as_it_does_in_browsers() {
        let target = parse("http://example.com\\@127.0.0.1/").expect("a public name");
        assert_eq!(target.host(), &TargetHost::Name("example.com".to_owned()));
    }

    #[test]
    fn a_private_name_can_be_named_once_the_operator_opened_a_network() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a network")], Vec::new(), Vec::new(), Vec::new());
        assert!(Target::parse("http://localhost:1234/", &policy).is_ok());
        assert!(Target::parse("http://127.0.0.1:1234/", &policy).is_ok());
        assert!(matches!(Target::parse("http://10.0.0.1/", &policy), Err(Error::Address(Refusal::NotPublic))));
    }

    #[test]
    fn the_fragment_is_dropped() {
        assert_eq!(parse("https://example.com/a#b").expect("a public name").url().as_str(), "https://example.com/a");
    }
}
