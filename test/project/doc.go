// Package project has the checks of this tree itself: that packages import what
// docs/architecture.md allows, that the README names commands that exist, and
// that the manual pages are sound.
package project
