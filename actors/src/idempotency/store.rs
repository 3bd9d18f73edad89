//! The table `idempotency_keys`.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;

use super::{Begun, Error, Request, Ticket};

/// Begin a request in the caller's transaction (READ COMMITTED, PostgreSQL's default). A request without a key is always
/// new. Never waits for another try of the same request: that is [`Error::InProgress`].
pub async fn begin<T: DeserializeOwned>(connection: &mut PgConnection, request: Option<Request>) -> Result<Begun<T>, Error> {
    let Some(request) = request else { return Ok(Begun::New(Ticket(None))) };
    // Held until the transaction ends. Two keys that share a hash only make one of them wait for a retry.
    let ours: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1::text || ' ' || $2 || ' ' || $3, 0))")
            .bind(request.scope)
            .bind(request.operation)
            .bind(&request.key)
            .fetch_one(&mut *connection)
            .await?;
    if !ours {
        return Err(Error::InProgress);
    }
    let written = sqlx::query(
        "INSERT INTO idempotency_keys (scope, operation, key, fingerprint) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(request.scope)
    .bind(request.operation)
    .bind(&request.key)
    .bind(&request.fingerprint)
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 1 {
        return Ok(Begun::New(Ticket(Some(request))));
    }
    let (fingerprint, reply): (String, Option<String>) =
        sqlx::query_as("SELECT fingerprint, reply FROM idempotency_keys WHERE scope = $1 AND operation = $2 AND key = $3")
            .bind(request.scope)
            .bind(request.operation)
            .bind(&request.key)
            .fetch_one(connection)
            .await?;
    if fingerprint != request.fingerprint {
        return Err(Error::Reused);
    }
    Ok(Begun::Done(serde_json::from_str(&reply.ok_or(Error::InProgress)?)?))
}

/// Keep the answer, in the transaction that did the work. Commit after it.
pub async fn finish<T: Serialize>(connection: &mut PgConnection, ticket: Ticket, reply: &T) -> Result<(), Error> {
    let Some(request) = ticket.0 else { return Ok(()) };
    sqlx::query("UPDATE idempotency_keys SET reply = $4 WHERE scope = $1 AND operation = $2 AND key = $3")
        .bind(request.scope)
        .bind(request.operation)
        .bind(&request.key)
        .bind(serde_json::to_string(reply)?)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bowerbird_lifecycle::IdSource;
    use bowerbird_nats::AccountId;
    use bowerbird_testkit::TestDatabase;

    use super::*;

    fn request(account: AccountId, fingerprint: &str) -> Option<Request> {
        Request::new(Some(account), "test.create", Some("key-1".into()), fingerprint).unwrap()
    }

    #[tokio::test]
    async fn the_same_request_gets_the_same_answer_and_another_body_is_refused() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let account = AccountId(IdSource.next());
        let mut transaction = pool.begin().await.unwrap();
        let Begun::New(ticket) = begin::<String>(&mut transaction, request(account, "a")).await.unwrap() else {
            panic!("nothing was done yet")
        };
        finish(&mut transaction, ticket, &"the answer".to_owned()).await.unwrap();
        transaction.commit().await.unwrap();

        let mut again = pool.begin().await.unwrap();
        let begun = begin::<String>(&mut again, request(account, "a")).await.unwrap();
        assert!(matches!(begun, Begun::Done(answer) if answer == "the answer"));
        assert!(matches!(begin::<String>(&mut again, request(account, "b")).await, Err(Error::Reused)));
        let somebody_else = AccountId(IdSource.next());
        assert!(matches!(begin::<String>(&mut again, request(somebody_else, "b")).await, Ok(Begun::New(_))));
    }

    #[tokio::test]
    async fn a_second_try_while_the_first_runs_is_told_so_and_a_rollback_leaves_nothing() {
        let database = TestDatabase::new().await;
        let pool = database.pool();
        let account = AccountId(IdSource.next());
        let mut first = pool.begin().await.unwrap();
        assert!(matches!(begin::<String>(&mut first, request(account, "a")).await, Ok(Begun::New(_))));
        let mut second = pool.begin().await.unwrap();
        assert!(matches!(begin::<String>(&mut second, request(account, "a")).await, Err(Error::InProgress)));
        first.rollback().await.unwrap();
        assert!(matches!(begin::<String>(&mut second, request(account, "a")).await, Ok(Begun::New(_))));
    }

    #[test]
    fn a_key_is_visible_ascii() {
        for wrong in ["", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(
                matches!(Request::new(None, "test.create", Some(wrong.to_owned()), "a"), Err(Error::MalformedKey)),
                "{wrong:?}"
            );
        }
        assert!(Request::new(None, "test.create", None, "a").unwrap().is_none());
    }
}
