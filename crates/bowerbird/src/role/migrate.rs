//! `bowerbird migrate`: bring the database up to date and end.

use bowerbird_config::Settings;

use crate::{
    failure::Failure,
    process::{PATIENCE, connect_database, migrate},
};

/// Migrate the database that `database.url` names.
pub(crate) async fn run(settings: &Settings) -> Result<(), Failure> {
    let Some(url) = &settings.database.url else {
        return Err(Failure::Settings(
            "database.url is not set; `bowerbird up` migrates its own database by itself, any other is named by database.url"
                .into(),
        ));
    };
    let pool = connect_database(settings, url.expose(), PATIENCE).await?;
    let outcome = migrate(&pool).await;
    pool.close().await;
    let outcome = outcome?;
    crate::print(&format!("schema {:04}, {} migrations applied\n", outcome.version, outcome.applied))
}
