//! The door from outside: a real nats-server, and a scripted service in place of the actors.

mod bounds;
mod content;
mod document;
mod operations;
mod pages;
mod refusals;
mod stage;
