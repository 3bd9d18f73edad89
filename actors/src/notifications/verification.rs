//! Proving that an address is read, and wanting no more e-mail. Both need no login: whoever has the link may.

use std::time::Duration;

use bowerbird_nats::{
    Code, Problem,
    account::{RequestEmailVerification, VerifyEmail},
    answer::Call,
    notification::Unsubscribe,
    operation::Done,
};

use super::{
    mail::{letter, tokens},
    requests::{Requests, not_any_more, problem},
    store::verifications,
};
use crate::accounts;

/// How long a proof may take.
const VALID: Duration = Duration::from_hours(24);

impl Requests {
    /// Send an e-mail with a link to the caller's address. One that is verified needs none.
    pub(crate) async fn request_email_verification(self, call: Call<RequestEmailVerification>) -> Result<Done, Problem> {
        let account = call.account()?.account_id;
        let this = self.collaborators();
        let Some(mail) = &this.mail else {
            return Err(Problem::new(
                Code::InvalidState,
                "this server sends no e-mail; whoever runs it has to set smtp.url and smtp.from",
            ));
        };
        let mut transaction = this.pool.begin().await.map_err(|error| problem(&error))?;
        let asking = verifications::asking(&mut transaction, account).await.map_err(|error| problem(&error))?;
        let asking = asking.ok_or_else(not_any_more)?;
        if asking.email_verified {
            return Ok(Done {});
        }
        let address = asking.email.ok_or_else(|| Problem::new(Code::InvalidState, "this account has no e-mail address"))?;
        if !letter::is_address(&address) {
            return Err(Problem::new(Code::InvalidState, "the address of this account is none that e-mail can be sent to"));
        }
        if let Some(seconds) = asking.wait_seconds {
            let mut problem =
                Problem::new(Code::TooMany, "a link was sent to this address already; look there, or try again later");
            problem.retry_after = Some(seconds);
            return Err(problem);
        }
        let email_id = this.ids.next();
        let token = this.tokens.verification(email_id, account, &address);
        let hash = tokens::hash(&token).ok_or_else(Problem::internal)?;
        verifications::ask(&mut transaction, account, email_id, &address, &hash, VALID.as_secs_f64())
            .await
            .map_err(|error| problem(&error))?;
        transaction.commit().await.map_err(|error| problem(&error))?;
        mail.mailer.wake();
        Ok(Done {})
    }

    /// Use a link, once: the account's address is verified, if it still is the one that the link was sent to.
    pub(crate) async fn verify_email(self, call: Call<VerifyEmail>) -> Result<Done, Problem> {
        let refused = || Problem::invalid("token", "is used, too old, or not one of ours; ask for a new link");
        let hash = tokens::hash(&call.request.token).ok_or_else(refused)?;
        let mut transaction = self.collaborators().pool.begin().await.map_err(|error| problem(&error))?;
        let proven = verifications::prove(&mut transaction, &hash).await.map_err(|error| problem(&error))?;
        let (account, address) = proven.ok_or_else(refused)?;
        if !accounts::email_verified(&mut transaction, account, &address).await.map_err(|error| problem(&error))? {
            return Err(refused());
        }
        transaction.commit().await.map_err(|error| problem(&error))?;
        Ok(Done {})
    }

    /// Send no more e-mail to the account that the link names.
    pub(crate) async fn unsubscribe(self, call: Call<Unsubscribe>) -> Result<Done, Problem> {
        let this = self.collaborators();
        let account = this.tokens.read_unsubscribing(&call.request.token);
        let account = account.ok_or_else(|| Problem::invalid("token", "is not one of ours; use the link as it is"))?;
        let mut connection = this.pool.acquire().await.map_err(|error| problem(&error))?;
        verifications::unsubscribe(&mut connection, account).await.map_err(|error| problem(&error))?;
        Ok(Done {})
    }
}
