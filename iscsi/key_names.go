package iscsi

// Keys of login and text negotiation (RFC 7143 §12 and §13; RFC 7145 §6 for those
// of iSER).
const (
	KeyAuthMethod = "AuthMethod"

	KeyHeaderDigest             = "HeaderDigest"
	KeyDataDigest               = "DataDigest"
	KeyMaxConnections           = "MaxConnections"
	KeySendTargets              = "SendTargets"
	KeyTargetName               = "TargetName"
	KeyInitiatorName            = "InitiatorName"
	KeyTargetAlias              = "TargetAlias"
	KeyInitiatorAlias           = "InitiatorAlias"
	KeyTargetAddress            = "TargetAddress"
	KeyTargetPortalGroupTag     = "TargetPortalGroupTag"
	KeyInitialR2T               = "InitialR2T"
	KeyImmediateData            = "ImmediateData"
	KeyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
	KeyMaxBurstLength           = "MaxBurstLength"
	KeyFirstBurstLength         = "FirstBurstLength"
	KeyDefaultTime2Wait         = "DefaultTime2Wait"
	KeyDefaultTime2Retain       = "DefaultTime2Retain"
	KeyMaxOutstandingR2T        = "MaxOutstandingR2T"
	KeyDataPDUInOrder           = "DataPDUInOrder"
	KeyDataSequenceInOrder      = "DataSequenceInOrder"
	KeyErrorRecoveryLevel       = "ErrorRecoveryLevel"
	KeySessionType              = "SessionType"
	KeyTaskReporting            = "TaskReporting"
	KeyNodeArchitecture         = "X#NodeArchitecture"
	KeyProtocolLevel            = "iSCSIProtocolLevel"

	// Markers are gone since RFC 7143 (§13.25), but old targets still offer them.
	KeyIFMarker  = "IFMarker"
	KeyOFMarker  = "OFMarker"
	KeyIFMarkInt = "IFMarkInt"
	KeyOFMarkInt = "OFMarkInt"

	KeyCHAPAlgorithm  = "CHAP_A"
	KeyCHAPIdentifier = "CHAP_I"
	KeyCHAPChallenge  = "CHAP_C"
	KeyCHAPName       = "CHAP_N"
	KeyCHAPResponse   = "CHAP_R"

	KeyRDMAExtensions                   = "RDMAExtensions"
	KeyInitiatorRecvDataSegmentLength   = "InitiatorRecvDataSegmentLength"
	KeyTargetRecvDataSegmentLength      = "TargetRecvDataSegmentLength"
	KeyMaxOutstandingUnexpectedPDUs     = "MaxOutstandingUnexpectedPDUs"
	KeyMaxAHSLength                     = "MaxAHSLength"
	KeyTaggedBufferForSolicitedDataOnly = "TaggedBufferForSolicitedDataOnly"
	KeyISERHelloRequired                = "iSERHelloRequired"
)

// Values of keys.
const (
	ValueYes           = "Yes"
	ValueNo            = "No"
	ValueNone          = "None"
	ValueCHAP          = "CHAP"
	ValueCRC32C        = "CRC32C"
	ValueNormal        = "Normal"
	ValueDiscovery     = "Discovery"
	ValueAll           = "All" // of SendTargets
	ValueReject        = "Reject"
	ValueNotUnderstood = "NotUnderstood"
	ValueIrrelevant    = "Irrelevant"
	ValueRFC3720       = "RFC3720" // of TaskReporting
	ValueResponseFence = "ResponseFence"
	ValueFastAbort     = "FastAbort"
)

// NumericRange is what a numeric key may be, and what holds where it is not negotiated.
type NumericRange struct {
	Min, Max, Default int
}

// RangeOf returns the range of a key that is a number. ok is false for others.
func RangeOf(key string) (r NumericRange, ok bool) {
	switch key {
	case KeyMaxConnections: // §13.2
		return NumericRange{1, 65535, 1}, true
	case KeyTargetPortalGroupTag: // §13.9; there is no default
		return NumericRange{0, 65535, 0}, true
	case KeyMaxRecvDataSegmentLength: // §13.12
		return NumericRange{512, MaxDataSegmentLength, 8192}, true
	case KeyMaxBurstLength: // §13.13
		return NumericRange{512, MaxDataSegmentLength, 262144}, true
	case KeyFirstBurstLength: // §13.14
		return NumericRange{512, MaxDataSegmentLength, 65536}, true
	case KeyDefaultTime2Wait: // §13.15, seconds
		return NumericRange{0, 3600, 2}, true
	case KeyDefaultTime2Retain: // §13.16, seconds
		return NumericRange{0, 3600, 20}, true
	case KeyMaxOutstandingR2T: // §13.17
		return NumericRange{1, 65535, 1}, true
	case KeyErrorRecoveryLevel: // §13.20
		return NumericRange{0, 2, 0}, true
	case KeyProtocolLevel: // §13.24
		return NumericRange{0, 31, 1}, true
	case KeyInitiatorRecvDataSegmentLength, KeyTargetRecvDataSegmentLength: // RFC 7145 §6.4, §6.5
		return NumericRange{512, MaxDataSegmentLength, 8192}, true
	}
	return NumericRange{}, false
}
