//! Changing an account. Who has found an open session must not have the account, so another address wants the password.

use std::sync::Arc;

use bowerbird_nats::{
    Problem,
    account::{Account, Clearable, Field, UpdateAccount},
    answer::Call,
};
use zeroize::Zeroizing;

use super::{Accounts, display_name_fault, email_fault, not_any_more, store, without};
use crate::{database, notifications};

/// Longest password that is worth a hash.
const PASSWORD_MAX_BYTES: usize = 1024;

impl Accounts {
    /// Change what is given, and tell the address that was verified before when it is no longer the account's.
    pub(super) async fn update(self, call: Call<UpdateAccount>) -> Result<Account, Problem> {
        let account = call.account()?.account_id;
        let this = Arc::clone(&self.0);
        let UpdateAccount { email, display_name, clear, password } = call.request;
        check(email.as_deref(), display_name.as_deref(), &clear)?;
        let of_email = email.is_some() || clear.contains(&Clearable::Email);
        // Hashed before anything is held; whether it still is the password is asked of the row again.
        let proven = if of_email {
            let password = Zeroizing::new(password.ok_or_else(|| wrong_password("is wanted to change the address"))?);
            let pool = this.pool.clone();
            let lookup = async move { store::password_hash(&pool, account).await.map_err(|error| database::problem(&error)) };
            let place = this.hashing.place()?;
            let found = this.workers.run("account.lookup", Some(account), call.deadline, lookup).await?;
            let stored = found.ok_or_else(not_any_more)?;
            if password.len() > PASSWORD_MAX_BYTES || !place.verify(password, stored.clone()).await?.matches {
                return Err(wrong_password("is not the password of this account"));
            }
            stored
        } else {
            None
        };
        let work = async move {
            let this = self.0;
            let mut transaction = this.pool.begin().await.map_err(|error| database::problem(&error))?;
            let held = store::hold(&mut transaction, account).await.map_err(|error| database::problem(&error))?;
            let (before, password_hash) = held.ok_or_else(not_any_more)?;
            if of_email && password_hash != proven {
                return Err(wrong_password("was changed meanwhile; send the new one"));
            }
            let (after, changed) = changed(&before, email, display_name, &clear);
            if changed.is_empty() {
                return Ok(before);
            }
            if changed.contains(&Field::Email) {
                let former = before.email.as_deref().filter(|_| before.email_verified);
                notifications::address_changed(&mut transaction, account, this.ids.next(), former)
                    .await
                    .map_err(|error| database::problem(&error))?;
            }
            store::update(&mut transaction, this.ids, &after, changed).await.map_err(|error| database::problem(&error))?;
            transaction.commit().await.map_err(|error| database::problem(&error))?;
            Ok(after)
        };
        this.workers.run("account.update", Some(account), call.deadline, work).await
    }
}

fn check(email: Option<&str>, display_name: Option<&str>, clear: &[Clearable]) -> Result<(), Problem> {
    let both = |given: bool, clearable| {
        (given && clear.contains(&clearable)).then(|| "is given and to be taken away; choose one".to_owned())
    };
    without([
        ("email", both(email.is_some(), Clearable::Email).or_else(|| email.and_then(email_fault))),
        (
            "display_name",
            both(display_name.is_some(), Clearable::DisplayName).or_else(|| display_name.and_then(display_name_fault)),
        ),
    ])
}

/// The account as it is to be, and what is different.
fn changed(before: &Account, email: Option<String>, display_name: Option<String>, clear: &[Clearable]) -> (Account, Vec<Field>) {
    let mut after = before.clone();
    if email.is_some() || clear.contains(&Clearable::Email) {
        after.email = email;
    }
    if display_name.is_some() || clear.contains(&Clearable::DisplayName) {
        after.display_name = display_name;
    }
    let mut changed = Vec::new();
    if after.email != before.email {
        after.email_verified = false;
        changed.push(Field::Email);
    }
    if after.display_name != before.display_name {
        changed.push(Field::DisplayName);
    }
    (after, changed)
}

fn wrong_password(why: &str) -> Problem {
    Problem::invalid("password", why)
}
