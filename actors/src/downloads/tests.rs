//! Downloads and files, from a request to the object and away again, against real servers.

mod asking;
mod running;
mod world;
