//! Both roles over real sockets, hosted on threads of the test.

mod engine;
mod hosting;
mod source;
