// Package daemon is what iscsid does: it keeps the sessions that clients add
// (package control), each with its connection (package session), its logical
// units (package disk) and the devices that the host sees of them (package
// device), until they are removed or the daemon stops.
package daemon
