// Package chaos shows that no mail is lost and none invented while everything around the daemon fails.
//
// Its test runs the real command, `postman run`, against a real Postgres and a real SMTP conversation. While an
// application writes about 300 changes a second, the daemon is killed with SIGKILL at random moments, Postgres is restarted
// and crashed, the relay goes away and comes back, and now and then a connection breaks right after the final
// dot. In the end each committed change that a rule matches has its mail, nothing else has one, and what came twice came
// with the same Message-ID and with a failure between its first copy and its second. Nobody lends a hand meanwhile: a
// daemon that streams has to outlive the absence of Postgres. One that is only just starting may give up, and is started
// again as a service manager does it.
//
// The test is short by default (about 30 seconds) and long with POSTMAN_CHAOS=long. It prints its seed;
// POSTMAN_CHAOS_SEED repeats the sequence of failures and of what the application writes, though not its timing.
package chaos
