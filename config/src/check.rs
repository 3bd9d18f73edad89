//! Rules between settings. A start is refused with a sentence that names both keys, instead of failing later.

use std::time::Duration;

use crate::{Error, Settings, StorageKind};

impl Settings {
    /// Refuse values that are each well formed but wrong, or wrong together.
    pub fn check(&self) -> Result<(), Error> {
        self.check_addresses()?;
        self.check_bus()?;
        self.check_storage()?;
        self.check_auth()?;
        self.check_downloads()?;
        self.check_uploads()?;
        self.check_alarms()?;
        self.check_reminders()?;
        self.check_webhooks()?;
        self.check_notifications()
    }

    /// Refuse e-mail whose links nobody could follow. For processes that send e-mail, before addresses that were left out are
    /// filled in. `own_address_will_do` where everything is one process: whoever reaches its address can follow the links.
    pub fn check_links(&self, own_address_will_do: bool) -> Result<(), Error> {
        let will_do = own_address_will_do && !self.gateway.listen.ip().is_unspecified();
        refuse_if(self.smtp.url.is_some() && self.gateway.public_url.is_none() && !will_do, || {
            "smtp.url is set, so gateway.public_url must be set too: e-mails have links, and they need an address that their readers \
             can reach"
                .into()
        })
    }

    fn check_reminders(&self) -> Result<(), Error> {
        let reminders = &self.reminders;
        at_least("reminders.catch_up", reminders.catch_up.get(), Duration::from_mins(1))?;
        at_most("reminders.catch_up", reminders.catch_up.get(), Duration::from_hours(24 * 365))?;
        refuse_if(reminders.max_scheduled_per_account == 0, || "reminders.max_scheduled_per_account must be at least 1".into())
    }

    fn check_uploads(&self) -> Result<(), Error> {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let uploads = &self.uploads;
        at_least("uploads.ttl", uploads.ttl.get(), Duration::from_secs(1))?;
        at_most("uploads.ttl", uploads.ttl.get(), Duration::from_hours(24 * 30))?;
        at_least("uploads.link_ttl", uploads.link_ttl.get(), Duration::from_secs(1))?;
        at_most("uploads.link_ttl", uploads.link_ttl.get(), Duration::from_mins(15))?;
        refuse_if(uploads.single_limit.get() > 5 * GIB, || {
            "uploads.single_limit must be at most 5GiB, as S3 takes no larger request".into()
        })?;
        refuse_if(!(5 * MIB..=5 * GIB).contains(&uploads.part_size.get()), || {
            "uploads.part_size must be from 5MiB to 5GiB, as S3 takes no other parts".into()
        })?;
        refuse_if(uploads.max_size.get() > 5 << 40, || {
            "uploads.max_size must be at most 5TiB, as S3 has no larger object".into()
        })?;
        refuse_if(uploads.max_unfinished_per_account == 0, || "uploads.max_unfinished_per_account must be at least 1".into())?;
        refuse_if(uploads.orphan_age <= uploads.ttl, || {
            "uploads.orphan_age must be longer than uploads.ttl, or uploads that still run would be deleted".into()
        })?;
        at_least("uploads.check_timeout", uploads.check_timeout.get(), Duration::from_millis(100))?;
        at_most("uploads.check_timeout", uploads.check_timeout.get(), Duration::from_mins(1))?;
        at_least("uploads.check_deadline", uploads.check_deadline.get(), Duration::from_secs(1))
    }

    fn check_addresses(&self) -> Result<(), Error> {
        let listeners = [
            ("gateway.listen", self.gateway.listen),
            ("gateway.operations_listen", self.gateway.operations_listen),
            ("storage.listen", self.storage.listen),
        ];
        for (index, (name, address)) in listeners.iter().enumerate() {
            for (other_name, other) in &listeners[index + 1..] {
                refuse_if(address.port() != 0 && address == other, || {
                    format!("{name} and {other_name} are both {address}; give one of them another port")
                })?;
            }
        }
        let urls = [
            ("gateway.public_url", &self.gateway.public_url),
            ("storage.endpoint", &self.storage.endpoint),
            ("storage.public_endpoint", &self.storage.public_endpoint),
        ];
        for (name, url) in urls {
            let names_a_user = url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some());
            refuse_if(names_a_user, || format!("{name} must hold no user and no password"))?;
        }
        refuse_if(self.gateway.body_limit.get() < 1024, || "gateway.body_limit must be at least 1KiB".into())?;
        refuse_if(self.gateway.max_connections == 0, || "gateway.max_connections must be at least 1".into())?;
        at_least("gateway.request_timeout", self.gateway.request_timeout.get(), Duration::from_secs(1))?;
        at_least("gateway.read_timeout", self.gateway.read_timeout.get(), Duration::from_secs(1))?;
        refuse_if(self.gateway.max_event_streams_per_account == 0, || {
            "gateway.max_event_streams_per_account must be at least 1".into()
        })?;
        at_least("gateway.event_heartbeat", self.gateway.event_heartbeat.get(), Duration::from_millis(100))?;
        let origins = |name: &'static str, origins: &[String]| {
            origins.iter().try_for_each(|origin| {
                refuse_if(origin == "*" || !origin.contains("://") || origin.ends_with('/'), || {
                    format!("{name}: `{origin}` is not an origin such as `https://app.example.org`")
                })
            })
        };
        origins("gateway.cors_origins", &self.gateway.cors_origins)?;
        origins("storage.cors_origins", self.storage.cors_origins.as_deref().unwrap_or_default())?;
        refuse_if(self.database.max_connections < 4, || "database.max_connections must be at least 4".into())
    }

    fn check_bus(&self) -> Result<(), Error> {
        let nats = &self.nats;
        let prefix_is_a_token =
            !nats.prefix.is_empty() && nats.prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        refuse_if(!prefix_is_a_token, || {
            format!("nats.prefix: `{}` must be one subject token of letters, digits, `_` and `-`", nats.prefix)
        })?;
        refuse_if(!matches!(nats.replicas, 1 | 3 | 5), || "nats.replicas must be 1, 3 or 5".into())?;
        refuse_if(nats.credentials_file.is_some() && nats.user.is_some(), || {
            "nats.credentials_file and nats.user are both set; keep the one that the NATS server expects".into()
        })?;
        refuse_if(nats.user.is_some() != nats.password.is_some(), || {
            "nats.user and nats.password go together; set both or none".into()
        })
    }

    fn check_storage(&self) -> Result<(), Error> {
        let storage = &self.storage;
        let bucket_is_legal = (3..=63).contains(&storage.bucket.len())
            && storage.bucket.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
            && !storage.bucket.starts_with(['-', '.'])
            && !storage.bucket.ends_with(['-', '.']);
        refuse_if(!bucket_is_legal, || {
            format!("storage.bucket: `{}` is not an S3 bucket name (3 to 63 of a-z, 0-9, `-`)", storage.bucket)
        })?;
        // Whether keys are needed is for the role to say: the gateway reaches objects by signed links alone.
        refuse_if(storage.kind == StorageKind::S3 && storage.endpoint.is_none(), || {
            "storage.kind is \"s3\", so storage.endpoint must be set".into()
        })?;
        refuse_if(storage.access_key_id.is_some() != storage.secret_access_key.is_some(), || {
            "storage.access_key_id and storage.secret_access_key go together; set both or none".into()
        })?;
        at_least("storage.presign_get_ttl", storage.presign_get_ttl.get(), Duration::from_secs(5))?;
        at_most("storage.presign_get_ttl", storage.presign_get_ttl.get(), Duration::from_mins(5))
    }

    fn check_auth(&self) -> Result<(), Error> {
        let auth = &self.auth;
        at_least("auth.access_token_ttl", auth.access_token_ttl.get(), Duration::from_secs(10))?;
        at_most("auth.access_token_ttl", auth.access_token_ttl.get(), Duration::from_mins(15))?;
        refuse_if(auth.refresh_token_ttl <= auth.access_token_ttl, || {
            "auth.refresh_token_ttl must be longer than auth.access_token_ttl".into()
        })?;
        refuse_if(auth.session_ttl < auth.refresh_token_ttl, || {
            "auth.session_ttl must not be shorter than auth.refresh_token_ttl".into()
        })?;
        refuse_if(auth.key_overlap <= auth.access_token_ttl, || {
            "auth.key_overlap must be longer than auth.access_token_ttl, or valid tokens would be refused after a rotation".into()
        })?;
        refuse_if(auth.key_rotation_interval < auth.key_overlap, || {
            "auth.key_rotation_interval must not be shorter than auth.key_overlap".into()
        })?;
        refuse_if(!(8..=64).contains(&auth.password_min_length), || "auth.password_min_length must be 8 to 64".into())?;
        refuse_if(auth.argon2_memory_kib < 8 * auth.argon2_lanes.max(1) || auth.argon2_memory_kib > 4 << 20, || {
            "auth.argon2_memory_kib must be at least 8 per lane and at most 4194304".into()
        })?;
        refuse_if(auth.argon2_passes == 0 || auth.argon2_lanes == 0 || auth.hash_queue == 0, || {
            "auth.argon2_passes, auth.argon2_lanes and auth.hash_queue must be at least 1".into()
        })
    }

    fn check_downloads(&self) -> Result<(), Error> {
        let downloads = &self.downloads;
        at_least("leases.duration", self.leases.duration.get(), Duration::from_secs(1))?;
        refuse_if(downloads.slots == 0 || downloads.max_connections == 0 || downloads.max_attempts == 0, || {
            "downloads.slots, downloads.max_connections and downloads.max_attempts must be at least 1".into()
        })?;
        refuse_if(downloads.max_connections > 64, || "downloads.max_connections must be at most 64".into())?;
        refuse_if(downloads.part_size.get() < 5 << 20, || {
            "downloads.part_size must be at least 5MiB, the smallest part that S3 takes".into()
        })?;
        let needed = downloads.part_size.get().saturating_mul(downloads.slots as u64);
        refuse_if(downloads.memory_budget.get() < needed.max(4 * downloads.part_size.get()), || {
            format!(
                "downloads.memory_budget must hold one part for each slot and four parts at least: {} slots of {:?} need {:?}",
                downloads.slots,
                downloads.part_size,
                crate::Size(needed.max(4 * downloads.part_size.get()))
            )
        })?;
        refuse_if(downloads.retry_max < downloads.retry_base, || {
            "downloads.retry_max must not be shorter than downloads.retry_base".into()
        })
    }

    fn check_alarms(&self) -> Result<(), Error> {
        at_least("alarms.horizon", self.alarms.horizon.get(), Duration::from_mins(1))?;
        at_most("alarms.horizon", self.alarms.horizon.get(), Duration::from_hours(30 * 24))?;
        at_least("alarms.poll", self.alarms.poll.get(), Duration::from_millis(100))?;
        at_most("alarms.poll", self.alarms.poll.get(), Duration::from_mins(1))
    }

    fn check_webhooks(&self) -> Result<(), Error> {
        let webhooks = &self.webhooks;
        refuse_if(webhooks.max_per_account == 0 || webhooks.max_pending == 0, || {
            "webhooks.max_per_account and webhooks.max_pending must be at least 1".into()
        })?;
        // Half of the slots are never for receivers that fail, so there must be two halves.
        refuse_if(webhooks.slots < 2 || webhooks.max_sending_per_webhook == 0, || {
            "webhooks.slots must be at least 2 and webhooks.max_sending_per_webhook at least 1".into()
        })?;
        at_least("webhooks.timeout", webhooks.timeout.get(), Duration::from_millis(100))?;
        at_most("webhooks.timeout", webhooks.timeout.get(), Duration::from_mins(1))?;
        refuse_if(webhooks.retries.len() > 50, || "webhooks.retries must be at most 50 waits".into())?;
        for wait in &webhooks.retries {
            at_most("webhooks.retries", wait.get(), Duration::from_hours(30 * 24))?;
        }
        at_most("webhooks.old_secret_for", webhooks.old_secret_for.get(), Duration::from_hours(30 * 24))
    }

    fn check_notifications(&self) -> Result<(), Error> {
        let notifications = &self.notifications;
        at_least("notifications.keep", notifications.keep.get(), Duration::from_hours(1))?;
        refuse_if(notifications.max_per_account == 0, || "notifications.max_per_account must be at least 1".into())?;
        let smtp = &self.smtp;
        refuse_if(smtp.url.is_some() != smtp.from.is_some(), || "smtp.url and smtp.from go together; set both or none".into())?;
        refuse_if(smtp.connections == 0 || smtp.max_attempts == 0 || smtp.max_per_account_and_hour == 0, || {
            "smtp.connections, smtp.max_attempts and smtp.max_per_account_and_hour must be at least 1".into()
        })?;
        refuse_if(smtp.retry_max < smtp.retry_base, || "smtp.retry_max must not be shorter than smtp.retry_base".into())
    }
}

fn refuse_if(wrong: bool, sentence: impl FnOnce() -> String) -> Result<(), Error> {
    if wrong { Err(Error::Conflict(sentence())) } else { Ok(()) }
}

fn at_least(key: &str, value: Duration, least: Duration) -> Result<(), Error> {
    refuse_if(value < least, || format!("{key} must be at least {}", humantime::format_duration(least)))
}

fn at_most(key: &str, value: Duration, most: Duration) -> Result<(), Error> {
    refuse_if(value > most, || format!("{key} must be at most {}", humantime::format_duration(most)))
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    #[test]
    fn each_rule_refuses_with_a_sentence_that_names_its_key() {
        let cases = [
            ("[gateway]\nlisten = \"127.0.0.1:9000\"", "gateway.listen"),
            ("[gateway]\ncors_origins = [\"*\"]", "gateway.cors_origins"),
            ("[storage]\ncors_origins = [\"https://app.example/\"]", "storage.cors_origins"),
            ("[gateway]\nevent_heartbeat = \"1ms\"", "gateway.event_heartbeat"),
            ("[gateway]\npublic_url = \"https://u:pw@h\"", "gateway.public_url"),
            ("[storage]\nendpoint = \"http://u@h\"", "storage.endpoint"),
            ("[nats]\nprefix = \"a.b\"", "nats.prefix"),
            ("[nats]\nreplicas = 2", "nats.replicas"),
            ("[nats]\nuser = \"a\"", "nats.password"),
            ("[storage]\nbucket = \"No\"", "storage.bucket"),
            ("[storage]\nkind = \"s3\"", "storage.endpoint"),
            ("[storage]\npresign_get_ttl = \"1h\"", "storage.presign_get_ttl"),
            ("[auth]\naccess_token_ttl = \"1h\"", "auth.access_token_ttl"),
            ("[auth]\nkey_overlap = \"1m\"", "auth.key_overlap"),
            ("[auth]\npassword_min_length = 4", "auth.password_min_length"),
            ("[reminders]\ncatch_up = \"1s\"", "reminders.catch_up"),
            ("[reminders]\nmax_scheduled_per_account = 0", "reminders.max_scheduled_per_account"),
            ("[downloads]\npart_size = \"1MiB\"", "downloads.part_size"),
            ("[webhooks]\nslots = 1", "webhooks.slots"),
            ("[webhooks]\ntimeout = \"2m\"", "webhooks.timeout"),
            ("[webhooks]\nretries = [\"40d\"]", "webhooks.retries"),
            ("[smtp]\nfrom = \"a@example.org\"", "smtp.url"),
            ("[smtp]\nconnections = 0", "smtp.connections"),
            ("[smtp]\nretry_max = \"1s\"", "smtp.retry_max"),
            ("[notifications]\nkeep = \"1s\"", "notifications.keep"),
            ("[notifications]\nmax_per_account = 0", "notifications.max_per_account"),
            ("[downloads]\nmemory_budget = \"16MiB\"", "downloads.memory_budget"),
        ];
        for (overrides, key) in cases {
            let error = Settings::with_overrides(overrides).unwrap_err().to_string();
            assert!(error.contains(key), "{overrides}: {error}");
        }
    }

    #[test]
    fn email_needs_an_address_that_links_can_lead_to() {
        let mut settings = Settings::with_overrides("[smtp]\nurl = \"smtp://h\"\nfrom = \"a@example.org\"").unwrap();
        let refused = settings.check_links(false).unwrap_err().to_string();
        assert!(refused.contains("gateway.public_url"), "{refused}");
        settings.check_links(true).unwrap();
        settings.gateway.listen.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        assert!(settings.check_links(true).is_err());
        settings.gateway.public_url = Some("https://drop.example.org".parse().unwrap());
        settings.check_links(false).unwrap();
        Settings::defaults().unwrap().check_links(false).unwrap();
    }
}
