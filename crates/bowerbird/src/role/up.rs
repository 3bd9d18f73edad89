//! `bowerbird up`: everything in one process.
use std::{str::FromStr, time::Duration};

use bowerbird_config::Settings;
use bowerbird_lifecycle::{IdSource, Shutdown, Tasks};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    arguments::UpOptions,
    children::{Keeper, nats::NatsServer, postgres::Cluster},
    data_dir::DataDir,
    failure::Failure,
};

pub(crate) async fn connect_database(settings: &Settings, url: &str) -> Result<PgPool, Failure> {
    let options = PgConnectOptions::from_str(url).map_err(|error| Failure::Settings(format!("database.url: {error}")))?;
    PgPoolOptions::new()
        .max_connections(settings.database.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))
}

pub(crate) async fn run(mut settings: Settings, options: UpOptions) -> Result<(), Failure> {
    if let Some(dir) = options.data_dir {
        settings.data_dir = dir;
    }
    let (shutdown, tasks) = (Shutdown::default(), Tasks::default());
    shutdown.listen_to_signals(&tasks).map_err(|error| Failure::Unavailable(error.to_string()))?;
    let data_dir = DataDir::open(&settings.data_dir)?;
    let mut credentials = data_dir.credentials(IdSource)?;
    let _ = data_dir.master_key()?;
    let keeper = Keeper::start().map_err(|error| Failure::Unavailable(error.to_string()))?;
    let cluster = Cluster::prepare(&data_dir, &credentials).await?;
    let nats = NatsServer::prepare(&data_dir, &mut credentials).await?;
    let (pg, url) = cluster.start(keeper.clone(), &tasks, |_| {}).await?;
    let nats = nats.start(keeper, &tasks, |_| {}).await?;
    let pool = connect_database(&settings, &url).await?;
    bowerbird_migrations::migrate(&pool).await.map_err(|error| Failure::Unavailable(error.to_string()))?;
    crate::print("Bowerbird is ready\n")?;
    shutdown.stopping().await;
    pool.close().await;
    nats.stop().await;
    pg.stop().await;
    Ok(())
}
