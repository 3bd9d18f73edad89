//! `bowerbird admin create`: the first account with the role `admin`.

use std::{
    io::{self, BufRead, IsTerminal},
    time::Duration,
};

use bowerbird_actors::store_admin::{self, AdminError};
use bowerbird_config::Settings;
use bowerbird_lifecycle::{Clock, IdSource};
use sqlx::PgPool;
use zeroize::Zeroizing;

use crate::{
    children::postgres,
    failure::{Failure, chain},
    process::{PATIENCE, connect_database, generated, migrate, missing},
};

/// Characters of a password that is made up here.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// 24 characters of 32 are 120 bits.
const GENERATED_CHARACTERS: usize = 24;

/// Make the account in the database that the settings name, or in that of the running `up` on this machine.
pub(crate) async fn create(settings: &Settings, name: &str) -> Result<(), Failure> {
    let (password, generated) = password()?;
    let pool = database(settings).await?;
    let made = async {
        migrate(&pool).await?;
        store_admin::create_admin(&pool, settings, &Clock::system(), IdSource, name, password.clone()).await.map_err(|error| {
            match error {
                AdminError::Database(_) => Failure::Unavailable(chain(&error)),
                _ => Failure::Settings(chain(&error)),
            }
        })
    };
    let made = made.await;
    pool.close().await;
    made?;
    let shown = if generated { format!("; its password is {}", password.as_str()) } else { String::new() };
    crate::print(&format!("the account {name} is an admin{shown}\n"))
}

/// The database that the settings name, or that of the running `up` on this machine.
pub(super) async fn database(settings: &Settings) -> Result<PgPool, Failure> {
    // Our own server is there or it is not; another may be starting.
    let patience = if settings.database.url.is_some() { PATIENCE } else { Duration::ZERO };
    let not_running = |failure| match (&settings.database.url, failure) {
        (None, Failure::Unavailable(_)) => Failure::Unavailable(format!(
            "the database of {} does not answer; start `bowerbird up` first, or set database.url",
            settings.data_dir.display()
        )),
        (_, failure) => failure,
    };
    let url = match (&settings.database.url, generated(&settings.data_dir)) {
        (Some(url), _) => url.expose().to_owned(),
        (None, Some(credentials)) => {
            let data_dir = settings.data_dir.canonicalize().unwrap_or_else(|_| settings.data_dir.clone());
            postgres::url_in(&data_dir, &credentials)
        }
        (None, None) => return Err(missing("database.url")),
    };
    connect_database(settings, &url, patience).await.map_err(not_running)
}

/// The first line of standard input, or a new one when that is a terminal or empty. True if it is new.
fn password() -> Result<(Zeroizing<String>, bool), Failure> {
    let mut line = Zeroizing::new(String::new());
    if !io::stdin().is_terminal() {
        io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| Failure::Settings(format!("the password cannot be read from standard input: {error}")))?;
    }
    let given = line.trim_end_matches(['\r', '\n']);
    if !given.is_empty() {
        return Ok((given.to_owned().into(), false));
    }
    let generated: String =
        (0..GENERATED_CHARACTERS).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect();
    Ok((generated.into(), true))
}
