// Package server lets the instances of a registry be used over HTTP, with a page to watch them.
//
//	POST   /v1/instances/{name}/call/{func}   {"args":[...]} -> {"results":[...],"seq":N}
//	POST   /v1/instances/{name}/events        the body goes to the handler; the answer is the effect
//	GET    /v1/instances/{name}/query/{func}  ?arg=..&arg=.. -> {"results":[...],"seq":N}
//	GET    /v1/instances                      ?after=NAME&limit=N -> {"instances":[...],"next":".."}
//	GET    /v1/instances/{name}               what is known of one
//	PUT    /v1/instances/{name}               creates it
//	DELETE /v1/instances/{name}
//	GET    /v1/watch, /v1/instances/{name}/watch   what goes on, as server-sent events
//	GET    /healthz, /readyz, /metrics, /openapi.json
//	GET    /                                  the page
//
// An instance is created by its first event, with the module that ?module= names. A request with an
// Idempotency-Key has its effect once, however often it is sent. Errors are problem documents (RFC
// 9457) that say whether the event was committed. docs/server.md has the rest.
package server
