package iscsi

import "fmt"

// LoginStatus is the outcome of a login request (RFC 7143 §11.13.5): the class
// in the high byte, the detail in the low one.
type LoginStatus uint16

// LoginClass is the class of a LoginStatus.
type LoginClass uint8

// The classes (§11.13.5). What an initiator does not know the detail of, it
// treats by class.
const (
	ClassSuccess        LoginClass = 0
	ClassRedirection    LoginClass = 1
	ClassInitiatorError LoginClass = 2
	ClassTargetError    LoginClass = 3
)

// The statuses.
const (
	LoginSuccess LoginStatus = 0x0000

	LoginTargetMovedTemporarily LoginStatus = 0x0101
	LoginTargetMovedPermanently LoginStatus = 0x0102

	LoginInitiatorError         LoginStatus = 0x0200
	LoginAuthenticationFailure  LoginStatus = 0x0201
	LoginAuthorizationFailure   LoginStatus = 0x0202
	LoginNotFound               LoginStatus = 0x0203
	LoginTargetRemoved          LoginStatus = 0x0204
	LoginUnsupportedVersion     LoginStatus = 0x0205
	LoginTooManyConnections     LoginStatus = 0x0206
	LoginMissingParameter       LoginStatus = 0x0207
	LoginCannotIncludeInSession LoginStatus = 0x0208
	LoginSessionTypeUnsupported LoginStatus = 0x0209
	LoginSessionDoesNotExist    LoginStatus = 0x020a
	LoginInvalidDuringLogin     LoginStatus = 0x020b

	LoginTargetError        LoginStatus = 0x0300
	LoginServiceUnavailable LoginStatus = 0x0301
	LoginOutOfResources     LoginStatus = 0x0302
)

// Class is the class of the status.
func (s LoginStatus) Class() LoginClass { return LoginClass(s >> 8) }

// Detail is the detail of the status, within its class.
func (s LoginStatus) Detail() uint8 { return uint8(s) }

// String is what RFC 7143 calls the status, for instance "Authentication
// failure"; for one that it does not have, the class with both numbers.
func (s LoginStatus) String() string {
	switch s.Class() {
	case ClassSuccess:
		if s == LoginSuccess {
			return "Success"
		}
		return s.unknown("success")
	case ClassRedirection:
		switch s {
		case LoginTargetMovedTemporarily:
			return "Target moved temporarily"
		case LoginTargetMovedPermanently:
			return "Target moved permanently"
		}
		return s.unknown("redirection")
	case ClassInitiatorError:
		return s.initiatorError()
	case ClassTargetError:
		switch s {
		case LoginTargetError:
			return "Target error"
		case LoginServiceUnavailable:
			return "Service unavailable"
		case LoginOutOfResources:
			return "Out of resources"
		}
		return s.unknown("target error")
	}
	return s.unknown("error")
}

func (s LoginStatus) initiatorError() string {
	switch s {
	case LoginInitiatorError:
		return "Initiator error"
	case LoginAuthenticationFailure:
		return "Authentication failure"
	case LoginAuthorizationFailure:
		return "Authorization failure"
	case LoginNotFound:
		return "Not found"
	case LoginTargetRemoved:
		return "Target removed"
	case LoginUnsupportedVersion:
		return "Unsupported version"
	case LoginTooManyConnections:
		return "Too many connections"
	case LoginMissingParameter:
		return "Missing parameter"
	case LoginCannotIncludeInSession:
		return "Can't include in session"
	case LoginSessionTypeUnsupported:
		return "Session type not supported"
	case LoginSessionDoesNotExist:
		return "Session does not exist"
	case LoginInvalidDuringLogin:
		return "Invalid during login"
	}
	return s.unknown("initiator error")
}

func (s LoginStatus) unknown(class string) string {
	return fmt.Sprintf("unknown %s; Status-Class 0x%x, Status-Detail 0x%x", class, uint8(s.Class()), s.Detail())
}
