//! One suite of the API's behaviour, run against every assembly on every database; the two assemblies against each
//! other; and the gateway against upstreams that misbehave.

mod assembly;
mod client;
mod conforms;
mod databases;
mod differential;
mod expired;
mod gateway;
mod postgres;
mod promised;
mod starting;
