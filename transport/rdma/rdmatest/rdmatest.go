// Package rdmatest is the conformance suite for providers of package rdma: each
// of its tests says what one of them must do between two ends of its own.
package rdmatest

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"iscsictl/transport/rdma"
)

// Rig is what the suite runs on.
type Rig struct {
	Provider rdma.Provider
	Listener rdma.Provider  // of the passive side; nil: the same
	Addr     netip.AddrPort // to listen at; its port may be 0
}

func (r Rig) passive() rdma.Provider {
	if r.Listener != nil {
		return r.Listener
	}
	return r.Provider
}

// Tests has the suite's tests by their names.
var Tests = map[string]func(*testing.T, Rig){
	"PrivateData":          testPrivateData,
	"Reject":               testReject,
	"ReadDepths":           testReadDepths,
	"BadOptions":           testBadOptions,
	"Send":                 testSend,
	"SendGathers":          testSendGathers,
	"SendsFillTheQueue":    testSendsFillTheQueue,
	"ReceivesAreReposted":  testReceivesAreReposted,
	"Write":                testWrite,
	"WriteUnaligned":       testWriteUnaligned,
	"WriteOfNothing":       testWriteOfNothing,
	"Read":                 testRead,
	"ReadsBeyondTheDepth":  testReadsBeyondTheDepth,
	"SendInvalidate":       testSendInvalidate,
	"RegionsRunOut":        testRegionsRunOut,
	"RevokeUnderReads":     testRevokeUnderReads,
	"BadKey":               testBadKey,
	"KeyOfRevokedRegion":   testKeyOfRevokedRegion,
	"OutOfBounds":          testOutOfBounds,
	"WrongAccess":          testWrongAccess,
	"SendTooLong":          testSendTooLong,
	"Handover":             testHandover,
	"HandlerRefuses":       testHandlerRefuses,
	"CloseIsSeen":          testCloseIsSeen,
	"CloseBeforeStart":     testCloseBeforeStart,
	"CloseUnderLoad":       testCloseUnderLoad,
	"PostAfterClose":       testPostAfterClose,
	"LoadInBothDirections": testLoad,
	"DialNobody":           testDialNobody,
	"DialIsCancelled":      testDialIsCancelled,
	"ListenerCloses":       testListenerCloses,
	"NothingLeaks":         testNothingLeaks,
}

// Run runs the whole suite.
func Run(t *testing.T, rig Rig) {
	for _, name := range slices.Sorted(maps.Keys(Tests)) {
		t.Run(name, func(t *testing.T) { Tests[name](t, rig) })
	}
}
